// vocab.json and merges.txt, the files of byte-level BPE from before tokenizer.json ->
// TokenizerSpec. They hold the words and the merges alone. How text is cut follows from the class
// that tokenizer_config.json names; special tokens stand there, or in special_tokens_map.json and
// added_tokens.json where it has no added_tokens_decoder. A named token that is in no file is new
// and gets the next id, as transformers does it.
#include <algorithm>
#include <optional>

#include "core/error.h"
#include "text/pre_types.h"
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

constexpr std::string_view kEndOfText = "<|endoftext|>";

// What a class of transformers adds to the files.
struct VocabClass {
  std::string_view name, pre;           // pre: the row of pre_types.h
  std::string_view bos, eos, unk, pad;  // where the configuration does not say; empty: none
  bool plain = false;  // special tokens swallow no white space, whatever the files say
};
constexpr VocabClass kClasses[] = {
    {"GPT2Tokenizer", "gpt-2", kEndOfText, kEndOfText, kEndOfText, ""},
    {"CodeGenTokenizer", "gpt-2", kEndOfText, kEndOfText, kEndOfText, ""},
    {"Qwen2Tokenizer", "qwen2", "", kEndOfText, kEndOfText, kEndOfText, true}};
constexpr std::string_view kNamed[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};

const VocabClass& class_of(const Field& config) {
  std::string name = config.text("tokenizer_class", "");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  for (const VocabClass& c : kClasses)
    if (c.name == name) return c;
  fail(ErrorKind::bad_file,
       "{}.tokenizer_class: is {}; from vocab.json and merges.txt alone, GPT2Tokenizer, "
       "CodeGenTokenizer and Qwen2Tokenizer are known: this folder needs its tokenizer.json",
       config.path, name.empty() ? "not there" : "'" + name.substr(0, 100) + "'");
}

// Lines of two words; the first may be "#version: 0.2".
void read_merges(std::string_view text, const std::string& path, ModelSpec& model) {
  CHECK_FILE(valid_utf8(text), "{}: is not UTF-8", path);
  TokenIndex index;
  index.build(model.tokens);
  for (size_t at = 0, number = 1; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    CHECK_FILE(space != line.npos && space > 0 && space + 1 < line.size() &&
                   line.find(' ', space + 1) == line.npos,
               "{}: line {}: '{}' must be two tokens with one space between", path, number,
               line.substr(0, 200));
    const std::string wrong =
        add_merge(model, index, line.substr(0, space), line.substr(space + 1));
    CHECK_FILE(wrong.empty(), "{}: line {}: {}", path, number, wrong);
  }
}

struct SpecialTokens {
  TokenizerSpec& spec;
  TokenIndex words;

  int32_t next_id() const {
    auto next = static_cast<int32_t>(spec.model.tokens.size());
    for (const AddedToken& t : spec.added) next = std::max(next, t.id + 1);
    return next;
  }

  void add(AddedToken token) {
    if (token.content.empty()) return;
    for (AddedToken& t : spec.added) {
      if (t.content != token.content) continue;
      if (token.special && !t.special) t.special = true;
      return;
    }
    token.id = words.find(token.content);
    if (token.id < 0) token.id = next_id();
    spec.added.push_back(std::move(token));
  }
  void add(std::string_view content) {
    if (!content.empty()) add(AddedToken{.content = std::string(content), .special = true});
  }
  // A text, or {"content": …}, which is special by its name or as it says.
  void add(const Field& value, bool named) {
    if (value.value.type() == element_type::STRING) return add(value.string());
    AddedToken token = read_added_token(value);
    if (named) token.special = true, token.normalized = value.flag("normalized", false);
    add(std::move(token));
  }

  // Ids of the files must be those of the vocabulary.
  void check(const std::string& origin) const {
    for (const AddedToken& t : spec.added) {
      const int32_t known = words.find(t.content);
      CHECK_FILE(known < 0 || known == t.id, "{}: '{}' is the added token {}, and {} in vocab.json",
                 origin, t.content, t.id, known);
      const auto id = static_cast<size_t>(t.id);
      CHECK_FILE(known >= 0 || id >= spec.model.tokens.size() || spec.model.tokens[id].empty(),
                 "{}: the added token '{}' has the id {}, which is '{}' in vocab.json", origin,
                 t.content, t.id, spec.model.tokens[id]);
    }
  }
};

// The text of bos_token and so on; what no file names has its class's.
std::string named_text(std::string_view key, const std::vector<const Field*>& files,
                       std::string_view otherwise) {
  for (const Field* file : files) {
    element member;
    if (json::object(file->value).at_key(key).get(member)) continue;
    const auto field = file->get(key);
    if (!field) return {};  // null
    return std::string(field->value.type() == element_type::STRING
                           ? field->string()
                           : field->need("content").string());
  }
  return std::string(otherwise);
}

// added_tokens.json: {"<|im_start|>": 151644, …}; special where another file names them.
void read_added_tokens(const Field& field, const std::vector<std::string>& special,
                       TokenizerSpec& spec) {
  json::object entries;
  if (field.value.get(entries)) field.wrong("an object of token to id");
  for (const auto& [key, value] : entries) {
    const Field item{value, fmt::format("{}['{}']", field.path, key)};
    AddedToken t{.id = static_cast<int32_t>(item.integer(0, (1 << 24) - 1)),
                 .content = std::string(key)};
    if (t.content.empty()) continue;
    t.special = std::find(special.begin(), special.end(), t.content) != special.end();
    t.normalized = !t.special;
    spec.added.push_back(std::move(t));
  }
}

std::vector<Field> extra_tokens(const std::vector<const Field*>& files) {
  for (const Field* file : files)
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"})
      if (const auto list = file->get(key); list && list->value.is_array()) return list->items();
  return {};
}

// What the files say, the first of them first; names and texts of the class where they are silent.
void read_special(const std::vector<const Field*>& files, const std::optional<Field>& added,
                  const VocabClass& kind, TokenizerSpec& spec) {
  const auto otherwise = [&](std::string_view key) {
    return key == "bos_token"   ? kind.bos
           : key == "eos_token" ? kind.eos
           : key == "unk_token" ? kind.unk
           : key == "pad_token" ? kind.pad
                                : std::string_view();
  };
  SpecialTokens tokens{spec, {}};
  tokens.words.build(spec.model.tokens);
  std::vector<std::string> special;
  for (const std::string_view key : kNamed)
    special.push_back(named_text(key, files, otherwise(key)));
  const auto extras = extra_tokens(files);
  for (const Field& extra : extras)
    special.emplace_back(extra.value.type() == element_type::STRING
                             ? extra.string()
                             : extra.need("content").string());
  if (added) read_added_tokens(*added, special, spec);
  tokens.check(files[0]->path);
  for (size_t i = 0; i < std::size(kNamed); ++i) {
    const auto stated = [&]() -> std::optional<Field> {
      for (const Field* file : files)
        if (auto field = file->get(kNamed[i])) return field;
      return std::nullopt;
    }();
    if (stated && !special[i].empty())
      tokens.add(*stated, true);
    else
      tokens.add(special[i]);
  }
  for (const Field& extra : extras) tokens.add(extra, false);
  for (AddedToken& t : spec.added)
    if (kind.plain && std::find(special.begin(), special.end(), t.content) != special.end())
      t = {.id = t.id, .content = std::move(t.content), .special = true};
  spec.bos = find_id(spec, special[0]), spec.eos = find_id(spec, special[1]);
  spec.unk = find_id(spec, special[2]), spec.pad = find_id(spec, special[4]);
}

}  // namespace

Tokenizer Tokenizer::from_vocab(const HfVocabFiles& files, std::string_view folder) {
  const auto path = [&](const char* name) { return fmt::format("{}/{}", folder, name); };
  simdjson::dom::parser vocab_parser, config_parser, added_parser, map_parser;
  const Field config = json::parse(config_parser, files.config.empty() ? "{}" : files.config,
                                   path("tokenizer_config.json"));
  const VocabClass& kind = class_of(config);
  TokenizerSpec spec;
  read_json_vocab(json::parse(vocab_parser, files.vocab, path("vocab.json")), spec.model);
  read_merges(files.merges, path("merges.txt"), spec.model);
  PreType pre;
  CHECK(find_pre_type(kind.pre, pre), "no pre-tokenizer is called {}", kind.pre);
  spec.pre_steps = std::move(pre.steps), spec.normalizers = std::move(pre.normalizers);
  spec.decoders = std::move(pre.decoders);
  spec.pre_steps.back().add_prefix_space = config.flag("add_prefix_space", false);

  std::vector<const Field*> sources = {&config};
  std::optional<Field> map, added;
  if (const auto field = config.get("added_tokens_decoder")) {
    read_added_decoder(*field, spec);
  } else {
    if (!files.special_tokens_map.empty()) {
      map = json::parse(map_parser, files.special_tokens_map, path("special_tokens_map.json"));
      if (!map->value.is_object()) map->wrong("an object");
      sources.insert(sources.begin(), &*map);
    }
    if (!files.added_tokens.empty())
      added = json::parse(added_parser, files.added_tokens, path("added_tokens.json"));
  }
  read_special(sources, added, kind, spec);
  if (config.flag("add_bos_token", false) && spec.bos >= 0) spec.prefix = {spec.bos};
  if (config.flag("add_eos_token", false) && spec.eos >= 0) spec.suffix = {spec.eos};
  return built(std::move(spec), path("vocab.json"));
}

}  // namespace supersonic::text
