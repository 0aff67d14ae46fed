// tokenizer_config.json: which tokens are BOS, EOS and so on, and what else a tokenizer without a
// tokenizer.json has from there.
#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "text/sentence_piece.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {

using json::element;
using json::element_type;
using json::Field;

namespace {

constexpr size_t kMaxDepth = 64, kMaxFile = size_t{1} << 30;

}  // namespace

namespace json {

Field parse(simdjson::dom::parser& parser, std::string_view text, std::string path) {
  CHECK_FILE(text.size() <= kMaxFile, "{}: {} bytes are too many for a tokenizer", path,
             text.size());
  CHECK(!parser.allocate(std::max<size_t>(text.size(), 64), kMaxDepth), "{}: out of memory", path);
  element root;
  const auto error = parser.parse(text.data(), text.size(), true).get(root);
  CHECK_FILE(!error, "{}: not valid JSON: {}", path, simdjson::error_message(error));
  return {root, std::move(path)};
}

}  // namespace json

AddedToken read_added_token(const Field& item) {
  AddedToken t;
  t.content = item.need("content").string();
  t.single_word = item.flag("single_word", false);
  t.lstrip = item.flag("lstrip", false);
  t.rstrip = item.flag("rstrip", false);
  t.special = item.flag("special", false);
  t.normalized = item.flag("normalized", !t.special);
  return t;
}

int32_t find_id(const TokenizerSpec& spec, std::string_view content) {
  for (const AddedToken& t : spec.added)
    if (t.content == content) return t.id;
  const auto& tokens = spec.model.tokens;
  const auto at = content.empty() ? tokens.end() : std::find(tokens.begin(), tokens.end(), content);
  return at == tokens.end() ? -1 : static_cast<int32_t>(at - tokens.begin());
}

// added_tokens_decoder: {"32000": {"content": …}, …}; what has an id already keeps it.
void read_added_decoder(const Field& field, TokenizerSpec& spec) {
  json::object entries;
  if (field.value.get(entries)) field.wrong("an object of id to token");
  for (const auto& [key, value] : entries) {
    const Field item{value, field.path + "." + std::string(key)};
    AddedToken t = read_added_token(item);
    if (t.content.empty()) continue;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), t.id);
    CHECK_FILE(
        error == std::errc() && end == key.data() + key.size() && t.id >= 0 && t.id < (1 << 24),
        "{}: is not the id of a token", item.path);
    std::erase_if(spec.added, [&](const AddedToken& a) { return a.id == t.id; });
    spec.added.push_back(std::move(t));
  }
}

namespace {

void read_config(const Field& config, TokenizerSpec& spec) {
  const auto set = [&](std::string_view key, int32_t& id) {
    const auto field = config.get(key);
    if (!field) return void(id = -1);
    const bool plain = field->value.type() == element_type::STRING;
    id = find_id(spec, plain ? field->string() : field->need("content").string());
  };
  set("bos_token", spec.bos);
  set("eos_token", spec.eos);
  set("pad_token", spec.pad);
  set("unk_token", spec.unk);
}

// The same for a tokenizer that has no tokenizer.json: also its added tokens, and which ids stand
// around a text.
void complete_from_config(std::string_view config, std::string_view origin, TokenizerSpec& spec) {
  bool add_bos = spec.model.kind == ModelSpec::bpe, add_eos = !add_bos;  // Llama's way, and T5's
  if (!config.empty()) {
    simdjson::dom::parser parser;
    const Field root =
        json::parse(parser, config, std::string(origin) + " (tokenizer_config.json)");
    constexpr std::string_view kShifted[] = {"XLM",     "Camembert", "MBart",   "NLLB",
                                             "Barthez", "M2M100",    "Pegasus", "Plbart"};
    const std::string name = root.text("tokenizer_class", "");
    for (const std::string_view prefix : kShifted)
      CHECK_FILE(!name.starts_with(prefix),
                 "{}: {} moves the ids of the SentencePiece model; this folder needs a "
                 "tokenizer.json",
                 root.path, name);
    if (const auto field = root.get("added_tokens_decoder")) read_added_decoder(*field, spec);
    const int32_t bos = spec.bos, eos = spec.eos, pad = spec.pad, unk = spec.unk;
    read_config(root, spec);
    const auto keep = [](int32_t& id, int32_t old) { id = id < 0 ? old : id; };
    keep(spec.bos, bos), keep(spec.eos, eos), keep(spec.pad, pad), keep(spec.unk, unk);
    add_bos = root.flag("add_bos_token", add_bos);
    add_eos = root.flag("add_eos_token", add_eos);
  }
  if (add_bos && spec.bos >= 0) spec.prefix = {spec.bos};
  if (add_eos && spec.eos >= 0) spec.suffix = {spec.eos};
}

}  // namespace

void read_json_config(std::string_view config, std::string_view origin, TokenizerSpec& spec) {
  simdjson::dom::parser parser;
  read_config(json::parse(parser, config, std::string(origin) + " (tokenizer_config.json)"), spec);
}

Tokenizer Tokenizer::from_sentence_piece(std::string_view model, std::string_view config,
                                         std::string_view origin) {
  TokenizerSpec spec = sentence_piece_spec(read_sentence_piece_model(model, origin), origin);
  complete_from_config(config, origin, spec);
  return built(std::move(spec), origin);
}

}  // namespace supersonic::text
