// tokenizer.json -> TokenizerSpec. Every value is checked for its type and range, and an error
// names the field; what the pipeline does not know is refused by name, never skipped.
#include <algorithm>
#include <optional>

#include "core/error.h"
#include "text/charsmap.h"
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

constexpr size_t kMaxSteps = 64;

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

}  // namespace

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view config,
                               std::string_view origin) {
  simdjson::dom::parser parser;
  const Field root = json::parse(parser, text, std::string(origin));
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

}  // namespace supersonic::text
