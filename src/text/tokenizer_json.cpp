// tokenizer.json -> TokenizerSpec. Every value is checked for its type and range, and an error
// names the field; what the pipeline does not know is refused by name, never skipped.
#include <simdjson.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "text/bpe.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::element_type;
using simdjson::dom::object;

constexpr size_t kMaxDepth = 64, kMaxFile = size_t{1} << 30, kMaxSteps = 64,
                 kMaxTokenBytes = 1 << 20;

// A value with its path, which errors show.
struct Field {
  element value;
  std::string path;

  [[noreturn]] void wrong(std::string_view want) const {
    fail(ErrorKind::bad_file, "{}: must be {}", path, want);
  }
  bool null() const { return value.type() == element_type::NULL_VALUE; }
  // A member that is present and not null.
  std::optional<Field> get(std::string_view key) const {
    element member;
    if (value.type() != element_type::OBJECT) wrong("an object");
    if (object(value).at_key(key).get(member) || member.type() == element_type::NULL_VALUE)
      return std::nullopt;
    return Field{member, path + "." + std::string(key)};
  }
  Field need(std::string_view key) const {
    if (auto field = get(key)) return *field;
    fail(ErrorKind::bad_file, "{}.{}: is missing", path, key);
  }
  std::string_view string() const {
    std::string_view s;
    if (value.get(s)) wrong("a string");
    return s;
  }
  bool boolean() const {
    bool b = false;
    if (value.get(b)) wrong("true or false");
    return b;
  }
  int64_t integer(int64_t low, int64_t high) const {
    int64_t n = 0;
    if (value.get(n) || n < low || n > high)
      wrong(fmt::format("an integer from {} to {}", low, high));
    return n;
  }
  std::vector<Field> items() const {
    array list;
    if (value.get(list)) wrong("an array");
    std::vector<Field> out;
    for (const element item : list)
      out.push_back({item, path + "[" + std::to_string(out.size()) + "]"});
    return out;
  }
  bool flag(std::string_view key, bool otherwise) const {
    const auto field = get(key);
    return field ? field->boolean() : otherwise;
  }
  std::string text(std::string_view key, std::string_view otherwise) const {
    const auto field = get(key);
    return std::string(field ? field->string() : otherwise);
  }
};

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
  if (field.value.type() == element_type::STRING) return {std::string(field.string()), false};
  if (const auto literal = field.get("String")) return {std::string(literal->string()), false};
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
  } else if (type != "Fuse") {
    unknown(f, "decoder");
  }
  out.push_back(std::move(step));
}

void read_vocab(const Field& vocab, BpeSpec& model) {
  object entries;
  if (vocab.value.get(entries)) vocab.wrong("an object of token to id");
  const size_t count =
      entries.size() >= 0xFFFFFF ? std::distance(entries.begin(), entries.end()) : entries.size();
  const auto limit = static_cast<int64_t>(
      count * 8 + 65536);  // ids may have holes, but a lying one must not allocate
  int64_t size = 0;
  for (const auto& [key, value] : entries) {
    int64_t id = -1;
    CHECK_FILE(!value.get(id) && id >= 0 && id < limit, "{}['{}']: must be an id from 0 to {}",
               vocab.path, key, limit - 1);
    CHECK_FILE(key.size() <= kMaxTokenBytes, "{}: token {} is longer than {} bytes", vocab.path, id,
               kMaxTokenBytes);
    size = std::max(size, id + 1);
  }
  model.tokens.resize(static_cast<size_t>(size));
  for (const auto& [key, value] : entries) {
    std::string& token = model.tokens[static_cast<size_t>(int64_t(value))];
    CHECK_FILE(token.empty(), "{}['{}']: has the same id as '{}'", vocab.path, key, token);
    token = key;
  }
}

std::pair<std::string_view, std::string_view> merge_pair(const Field& merges, element item,
                                                         size_t index) {
  std::string_view joined;
  if (!item.get(joined)) {
    const size_t space = joined.find(' ');
    CHECK_FILE(space != joined.npos && joined.find(' ', space + 1) == joined.npos,
               "{}[{}]: '{}' must be two tokens with one space between", merges.path, index,
               joined);
    return {joined.substr(0, space), joined.substr(space + 1)};
  }
  array pair;
  std::string_view left, right;
  CHECK_FILE(!item.get(pair) && pair.size() == 2 && !pair.at(0).get(left) && !pair.at(1).get(right),
             "{}[{}]: must be \"left right\" or [left, right]", merges.path, index);
  return {left, right};
}

void read_merges(const Field& merges, BpeSpec& model) {
  array list;
  if (merges.value.get(list)) merges.wrong("an array");
  TokenIndex index;
  index.build(model.tokens);
  std::string joined;
  for (const element item : list) {
    const size_t n = model.merges.size();
    const auto [left, right] = merge_pair(merges, item, n);
    const bool prefixed =
        !model.subword_prefix.empty() && right.size() >= model.subword_prefix.size();
    joined.assign(left).append(prefixed ? right.substr(model.subword_prefix.size()) : right);
    const MergeRule rule{index.find(left), index.find(right), index.find(joined),
                         static_cast<uint32_t>(n)};
    CHECK_FILE(rule.left >= 0, "{}[{}]: '{}' is not in the vocabulary", merges.path, n, left);
    CHECK_FILE(rule.right >= 0, "{}[{}]: '{}' is not in the vocabulary", merges.path, n, right);
    CHECK_FILE(rule.result >= 0, "{}[{}]: the result '{}' is not in the vocabulary", merges.path, n,
               joined);
    model.merges.push_back(rule);
  }
}

void read_model(const Field& field, BpeSpec& model) {
  const auto type = field.get("type");
  CHECK_FILE(!type || type->string() == "BPE", "{}.type: model '{}' is not supported, only BPE is",
             field.path, type->string());
  model.unk_token = field.text("unk_token", "");
  model.subword_prefix = field.text("continuing_subword_prefix", "");
  model.word_suffix = field.text("end_of_word_suffix", "");
  model.fuse_unk = field.flag("fuse_unk", false);
  model.byte_fallback = field.flag("byte_fallback", false);
  model.ignore_merges = field.flag("ignore_merges", false);
  read_vocab(field.need("vocab"), model);
  read_merges(field.need("merges"), model);
}

void read_added(const Field& field, TokenizerSpec& spec) {
  TokenIndex index;
  index.build(spec.model.tokens);
  const auto items = field.items();
  const auto limit = static_cast<int64_t>((spec.model.tokens.size() + items.size()) * 8 + 65536);
  for (const Field& item : items) {
    AddedToken t;
    t.content = item.need("content").string();
    t.id = static_cast<int32_t>(item.need("id").integer(0, limit - 1));
    t.single_word = item.flag("single_word", false);
    t.lstrip = item.flag("lstrip", false);
    t.rstrip = item.flag("rstrip", false);
    t.special = item.flag("special", false);
    t.normalized = item.flag("normalized", !t.special);
    if (t.content.empty()) continue;  // the crate ignores these
    if (const int32_t known = index.find(t.content); known >= 0) t.id = known;
    spec.added.push_back(std::move(t));
  }
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
  const auto id = [&](std::string_view key) {
    const auto field = config.get(key);
    if (!field) return -1;
    const bool plain = field->value.type() == element_type::STRING;
    return find_id(spec, plain ? field->string() : field->need("content").string());
  };
  spec.bos = id("bos_token");
  spec.eos = id("eos_token");
  spec.pad = id("pad_token");
  spec.unk = id("unk_token");
}

}  // namespace

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view config,
                               std::string_view origin) {
  simdjson::dom::parser parser;
  const Field root = parse(parser, text, std::string(origin));
  TokenizerSpec spec;
  read_model(root.need("model"), spec.model);
  if (const auto field = root.get("added_tokens")) read_added(*field, spec);
  if (const auto field = root.get("normalizer"))
    components(*field, "normalizers", spec.normalizers, read_normalizer);
  if (const auto field = root.get("pre_tokenizer"))
    components(*field, "pretokenizers", spec.pre_steps, read_pre_tokenizer);
  if (const auto field = root.get("decoder"))
    components(*field, "decoders", spec.decoders, read_decoder);
  if (const auto field = root.get("post_processor")) read_post_processor(*field, spec);
  if (!spec.model.unk_token.empty()) spec.unk = find_id(spec, spec.model.unk_token);
  if (!config.empty()) {
    simdjson::dom::parser config_parser;
    read_config(parse(config_parser, config, std::string(origin) + " (tokenizer_config.json)"),
                spec);
  }
  return Tokenizer(std::move(spec));
}

}  // namespace supersonic::text
