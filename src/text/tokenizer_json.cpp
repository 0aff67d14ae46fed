// tokenizer.json -> TokenizerSpec. Every value is checked for its type and range, and an error
// names the field; what the pipeline does not know is refused by name, never skipped.
#include <algorithm>
#include <charconv>
#include <optional>

#include "core/error.h"
#include "text/charsmap.h"
#include "text/sentence_piece.h"
#include "text/token_index.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

using json::element;
using json::element_type;
using json::Field;

constexpr size_t kMaxDepth = 64, kMaxFile = size_t{1} << 30, kMaxSteps = 64;

// Components: {"type": …} or null; a Sequence is flattened. list: the member that holds a
// Sequence's parts.
template <class Step>
void components(const Field& field, std::string_view list, std::vector<Step>& out,
                void (*read)(const Field&, std::vector<Step>&)) {
  if (field.need("type").string() == "Sequence") {
    for (const Field& part : field.need(list).items()) components(part, list, out, read);
    return;
  }
  CHECK_FILE(out.size() < kMaxSteps, "{}: more than {} steps", field.path, kMaxSteps);
  read(field, out);
}

[[noreturn]] void unknown(const Field& field, std::string_view kind) {
  fail(ErrorKind::bad_file, "{}.type: {} '{}' is not supported", field.path, kind,
       field.need("type").string());
}

Pattern read_pattern(const Field& field) {
  // An empty one matches between any two characters, as an empty expression does.
  const auto plain = [](std::string_view text) { return Pattern{std::string(text), text.empty()}; };
  if (field.value.type() == element_type::STRING) return plain(field.string());
  if (const auto literal = field.get("String")) return plain(literal->string());
  if (const auto regex = field.get("Regex")) return {std::string(regex->string()), true};
  field.wrong("{\"String\": …} or {\"Regex\": …}");
}

void read_normalizer(const Field& f, std::vector<NormalizerStep>& out) {
  const std::string_view type = f.need("type").string();
  NormalizerStep step{.kind = NormalizerStep::nfc, .pattern = {}, .content = {}};
  constexpr std::pair<std::string_view, NormalizerStep::Kind> kPlain[] = {
      {"NFC", NormalizerStep::nfc},
      {"NFD", NormalizerStep::nfd},
      {"NFKC", NormalizerStep::nfkc},
      {"NFKD", NormalizerStep::nfkd},
      {"Lowercase", NormalizerStep::lowercase},
      {"StripAccents", NormalizerStep::strip_accents},
      {"Nmt", NormalizerStep::nmt},
      {"ByteLevel", NormalizerStep::byte_level}};
  const auto plain =
      std::find_if(std::begin(kPlain), std::end(kPlain), [&](auto& p) { return p.first == type; });
  if (plain != std::end(kPlain)) {
    step.kind = plain->second;
  } else if (type == "Strip") {
    step.kind = NormalizerStep::strip;
    step.left = f.flag("strip_left", true);
    step.right = f.flag("strip_right", true);
  } else if (type == "Prepend") {
    step.kind = NormalizerStep::prepend;
    step.content = f.need("prepend").string();
  } else if (type == "Replace") {
    step.kind = NormalizerStep::replace;
    step.pattern = read_pattern(f.need("pattern"));
    step.content = f.need("content").string();
  } else if (type == "BertNormalizer") {
    step.kind = NormalizerStep::bert;
    step.clean = f.need("clean_text").boolean();
    step.cut_han = f.need("handle_chinese_chars").boolean();
    step.lower = f.need("lowercase").boolean();
    step.drop_accents = f.flag("strip_accents", step.lower);
  } else if (type == "Precompiled") {
    step.kind = NormalizerStep::charsmap;
    const Field map = f.need("precompiled_charsmap");
    auto bytes = from_base64(map.string());
    if (!bytes) map.wrong("base64");
    step.content = std::move(*bytes);
  } else {
    unknown(f, "normalizer");
  }
  out.push_back(std::move(step));
}

Behavior read_behavior(const Field& f, std::optional<Behavior> otherwise) {
  const auto field = otherwise ? f.get("behavior") : f.need("behavior");
  if (!field) return *otherwise;
  const std::string_view name = field->string();
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  field->wrong("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

PrependScheme read_prepend(const Field& f) {
  if (const auto field = f.get("prepend_scheme")) {
    const std::string_view name = field->string();
    if (name == "first") return PrependScheme::first;
    if (name == "never") return PrependScheme::never;
    if (name == "always") return PrependScheme::always;
    field->wrong("first, never or always");
  }
  return f.flag("add_prefix_space", true) ? PrependScheme::always
                                          : PrependScheme::never;  // the older spelling
}

std::string one_character(const Field& field) {
  const std::string_view s = field.string();
  if (s.empty() || utf8_step(s).bytes != s.size()) field.wrong("one character");
  return std::string(s);
}

void read_pre_tokenizer(const Field& f, std::vector<PreStep>& out) {
  const std::string_view type = f.need("type").string();
  PreStep step{.kind = PreStep::split, .pattern = {}};
  if (type == "Split") {
    step.pattern = read_pattern(f.need("pattern"));
    step.behavior = read_behavior(f, std::nullopt);
    step.invert = f.flag("invert", false);
  } else if (type == "CharDelimiterSplit") {
    step.pattern = {one_character(f.need("delimiter")), false};
    step.behavior = Behavior::removed;
  } else if (type == "ByteLevel") {
    step.kind = PreStep::byte_level;
    step.add_prefix_space = f.flag("add_prefix_space", true);
    step.use_regex = f.flag("use_regex", true);
  } else if (type == "Metaspace") {
    step.kind = PreStep::metaspace;
    step.replacement = one_character(f.need("replacement"));
    step.prepend = read_prepend(f);
    step.split_words = f.flag("split", true);
  } else if (type == "Digits") {
    step.kind = PreStep::digits;
    step.individual = f.flag("individual_digits", false);
  } else if (type == "Punctuation") {
    step.kind = PreStep::punctuation;
    step.behavior = read_behavior(f, Behavior::isolated);
  } else if (type == "Whitespace") {
    step.kind = PreStep::whitespace;
  } else if (type == "BertPreTokenizer") {  // two cuts in one
    step.kind = PreStep::whitespace_split;
    out.push_back(step);
    step.kind = PreStep::punctuation;
  } else if (type == "UnicodeScripts") {
    step.kind = PreStep::scripts;
  } else if (type == "FixedLength") {
    step.kind = PreStep::fixed_length;
    const auto length = f.get("length");
    step.length = length ? static_cast<uint32_t>(length->integer(1, INT32_MAX)) : 5;
  } else if (type == "WhitespaceSplit") {
    step.kind = PreStep::whitespace_split;
  } else {
    unknown(f, "pre-tokenizer");
  }
  out.push_back(std::move(step));
}

void read_decoder(const Field& f, std::vector<DecodeStep>& out) {
  const std::string_view type = f.need("type").string();
  DecodeStep step{.kind = DecodeStep::fuse, .pattern = {}, .content = {}};
  if (type == "ByteLevel") {
    step.kind = DecodeStep::byte_level;
  } else if (type == "Replace") {
    step.kind = DecodeStep::replace;
    step.pattern = read_pattern(f.need("pattern"));
    step.content = f.need("content").string();
  } else if (type == "ByteFallback") {
    step.kind = DecodeStep::byte_fallback;
  } else if (type == "Strip") {
    step.kind = DecodeStep::strip;
    step.content = one_character(f.need("content"));
    step.start = static_cast<uint32_t>(f.need("start").integer(0, 1 << 20));
    step.stop = static_cast<uint32_t>(f.need("stop").integer(0, 1 << 20));
  } else if (type == "Metaspace") {
    step.kind = DecodeStep::metaspace;
    step.content = one_character(f.need("replacement"));
    step.prepend = read_prepend(f);
  } else if (type == "BPEDecoder") {
    step.kind = DecodeStep::suffix;
    step.content = f.text("suffix", "</w>");
  } else if (type == "WordPiece") {
    step.kind = DecodeStep::word_piece;
    step.content = f.need("prefix").string();
    step.cleanup = f.need("cleanup").boolean();
  } else if (type == "CTC") {
    step.kind = DecodeStep::ctc;
    step.content = f.need("pad_token").string();
    step.delimiter = f.need("word_delimiter_token").string();
    step.cleanup = f.need("cleanup").boolean();
  } else if (type != "Fuse") {
    unknown(f, "decoder");
  }
  out.push_back(std::move(step));
}

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

// Models that look words up whole would find the spelling of a special token in text that must not
// have one. (BPE does not: what its merges cannot reach is out of reach.)
void hide_special(TokenizerSpec& spec) {
  ModelSpec& m = spec.model;
  if (m.kind == ModelSpec::bpe) return;
  m.hidden.assign(m.tokens.size(), 0);
  for (const AddedToken& t : spec.added)
    if (t.special && static_cast<size_t>(t.id) < m.hidden.size())
      m.hidden[static_cast<size_t>(t.id)] = 1;
}

void read_added(const Field& field, TokenizerSpec& spec) {
  TokenIndex index;
  index.build(spec.model.tokens);
  const auto items = field.items();
  const auto limit = static_cast<int64_t>((spec.model.tokens.size() + items.size()) * 8 + 65536);
  for (const Field& item : items) {
    AddedToken t = read_added_token(item);
    t.id = static_cast<int32_t>(item.need("id").integer(0, limit - 1));
    if (t.content.empty()) continue;  // the crate ignores these
    if (const int32_t known = index.find(t.content); known >= 0) t.id = known;
    spec.added.push_back(std::move(t));
  }
  hide_special(spec);
}

// A template's parts around its sequence "A".
void read_template(const Field& f, std::vector<int32_t>& before, std::vector<int32_t>& after) {
  bool seen = false;
  for (const Field& part : f.need("single").items()) {
    if (const auto sequence = part.get("Sequence")) {
      CHECK_FILE(!seen, "{}: the text stands twice in the template", part.path);
      seen = true;
      continue;
    }
    const std::string name(part.need("SpecialToken").need("id").string());
    const Field tokens = f.need("special_tokens");
    const auto special = tokens.get(name);
    CHECK_FILE(special, "{}: '{}' is not in special_tokens", part.path, name);
    for (const Field& id : special->need("ids").items())
      (seen ? after : before).push_back(static_cast<int32_t>(id.integer(0, INT32_MAX - 1)));
  }
}

void read_post_processor(const Field& f, TokenizerSpec& spec) {
  const std::string_view type = f.need("type").string();
  std::vector<int32_t> before, after;
  if (type == "Sequence") {
    for (const Field& part : f.need("processors").items()) read_post_processor(part, spec);
    return;
  }
  if (type == "TemplateProcessing") {
    read_template(f, before, after);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    const auto id = [&](const char* key) {
      const auto pair = f.need(key).items();
      CHECK_FILE(pair.size() == 2, "{}.{}: must be [token, id]", f.path, key);
      return static_cast<int32_t>(pair[1].integer(0, INT32_MAX - 1));
    };
    before = {id("cls")};
    after = {id("sep")};
  } else if (type != "ByteLevel") {  // which moves offsets only
    unknown(f, "post-processor");
  }
  spec.prefix.insert(spec.prefix.begin(), before.begin(), before.end());
  spec.suffix.insert(spec.suffix.end(), after.begin(), after.end());
}

Field parse(simdjson::dom::parser& parser, std::string_view text, std::string path) {
  CHECK_FILE(text.size() <= kMaxFile, "{}: {} bytes are too many for a tokenizer", path,
             text.size());
  CHECK(!parser.allocate(std::max<size_t>(text.size(), 64), kMaxDepth), "{}: out of memory", path);
  element root;
  const auto error = parser.parse(text.data(), text.size(), true).get(root);
  CHECK_FILE(!error, "{}: not valid JSON: {}", path, simdjson::error_message(error));
  return {root, std::move(path)};
}

int32_t find_id(const TokenizerSpec& spec, std::string_view content) {
  for (const AddedToken& t : spec.added)
    if (t.content == content) return t.id;
  const auto& tokens = spec.model.tokens;
  const auto at = content.empty() ? tokens.end() : std::find(tokens.begin(), tokens.end(), content);
  return at == tokens.end() ? -1 : static_cast<int32_t>(at - tokens.begin());
}

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

// tokenizer_config.json: which tokens are BOS, EOS, padding and unknown.
void read_json_config(std::string_view config, std::string_view origin, TokenizerSpec& spec) {
  simdjson::dom::parser parser;
  read_config(parse(parser, config, std::string(origin) + " (tokenizer_config.json)"), spec);
}

// The same for a tokenizer that has no tokenizer.json: also its added tokens, and which ids stand
// around a text.
void complete_from_config(std::string_view config, std::string_view origin, TokenizerSpec& spec) {
  bool add_bos = spec.model.kind == ModelSpec::bpe, add_eos = !add_bos;  // Llama's way, and T5's
  if (!config.empty()) {
    simdjson::dom::parser parser;
    const Field root = parse(parser, config, std::string(origin) + " (tokenizer_config.json)");
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

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view config,
                               std::string_view origin) {
  simdjson::dom::parser parser;
  const Field root = parse(parser, text, std::string(origin));
  TokenizerSpec spec;
  read_json_model(root.need("model"), spec.model);
  if (const auto field = root.get("added_tokens")) read_added(*field, spec);
  if (const auto field = root.get("normalizer"))
    components(*field, "normalizers", spec.normalizers, read_normalizer);
  if (const auto field = root.get("pre_tokenizer"))
    components(*field, "pretokenizers", spec.pre_steps, read_pre_tokenizer);
  if (const auto field = root.get("decoder"))
    components(*field, "decoders", spec.decoders, read_decoder);
  if (const auto field = root.get("post_processor")) read_post_processor(*field, spec);
  if (!spec.model.unk_token.empty()) spec.unk = find_id(spec, spec.model.unk_token);
  if (spec.model.kind == ModelSpec::unigram) spec.unk = spec.model.unk_id;
  if (!config.empty()) read_json_config(config, origin, spec);
  return built(std::move(spec), origin);
}

Tokenizer Tokenizer::from_sentence_piece(std::string_view model, std::string_view config,
                                         std::string_view origin) {
  TokenizerSpec spec = sentence_piece_spec(read_sentence_piece_model(model, origin), origin);
  complete_from_config(config, origin, spec);
  return built(std::move(spec), origin);
}

}  // namespace supersonic::text
