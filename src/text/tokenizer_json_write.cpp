// TokenizerSpec -> the files of a Hugging Face folder: tokenizer.json, tokenizer_config.json,
// special_tokens_map.json.
#include <fmt/core.h>

#include "io/json_tree.h"
#include "text/charsmap.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {
namespace {

using Json = io::JsonTree;

Json pattern(const Pattern& p) { return Json::object({{p.regex ? "Regex" : "String", p.text}}); }
const char* prepend_name(PrependScheme s) {
  return s == PrependScheme::first ? "first" : s == PrependScheme::never ? "never" : "always";
}
const char* behavior_name(Behavior b) {
  constexpr const char* kNames[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                    "Contiguous"};
  return kNames[static_cast<int>(b)];
}

Json component(const NormalizerStep& s) {
  switch (s.kind) {
    case NormalizerStep::nfc:
      return Json::object({{"type", "NFC"}});
    case NormalizerStep::nfd:
      return Json::object({{"type", "NFD"}});
    case NormalizerStep::nfkc:
      return Json::object({{"type", "NFKC"}});
    case NormalizerStep::nfkd:
      return Json::object({{"type", "NFKD"}});
    case NormalizerStep::lowercase:
      return Json::object({{"type", "Lowercase"}});
    case NormalizerStep::strip:
      return Json::object({{"type", "Strip"}, {"strip_left", s.left}, {"strip_right", s.right}});
    case NormalizerStep::strip_accents:
      return Json::object({{"type", "StripAccents"}});
    case NormalizerStep::prepend:
      return Json::object({{"type", "Prepend"}, {"prepend", s.content}});
    case NormalizerStep::replace:
      return Json::object(
          {{"type", "Replace"}, {"pattern", pattern(s.pattern)}, {"content", s.content}});
    case NormalizerStep::bert:
      return Json::object({{"type", "BertNormalizer"},
                           {"clean_text", s.clean},
                           {"handle_chinese_chars", s.cut_han},
                           {"strip_accents", s.drop_accents},
                           {"lowercase", s.lower}});
    case NormalizerStep::nmt:
      return Json::object({{"type", "Nmt"}});
    case NormalizerStep::charsmap:
      return Json::object(
          {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(s.content)}});
    case NormalizerStep::byte_level:
      break;
  }
  return Json::object({{"type", "ByteLevel"}});
}

Json component(const PreStep& s) {
  switch (s.kind) {
    case PreStep::split:
      return Json::object({{"type", "Split"},
                           {"pattern", pattern(s.pattern)},
                           {"behavior", behavior_name(s.behavior)},
                           {"invert", s.invert}});
    case PreStep::byte_level:
      return Json::object({{"type", "ByteLevel"},
                           {"add_prefix_space", s.add_prefix_space},
                           {"trim_offsets", true},
                           {"use_regex", s.use_regex}});
    case PreStep::metaspace:
      return Json::object({{"type", "Metaspace"},
                           {"replacement", s.replacement},
                           {"prepend_scheme", prepend_name(s.prepend)},
                           {"split", s.split_words}});
    case PreStep::digits:
      return Json::object({{"type", "Digits"}, {"individual_digits", s.individual}});
    case PreStep::punctuation:
      return Json::object({{"type", "Punctuation"}, {"behavior", behavior_name(s.behavior)}});
    case PreStep::whitespace:
      return Json::object({{"type", "Whitespace"}});
    case PreStep::scripts:
      return Json::object({{"type", "UnicodeScripts"}});
    case PreStep::fixed_length:
      return Json::object({{"type", "FixedLength"}, {"length", s.length}});
    case PreStep::whitespace_split:
      break;
  }
  return Json::object({{"type", "WhitespaceSplit"}});
}

Json component(const DecodeStep& s) {
  switch (s.kind) {
    case DecodeStep::byte_level:
      return Json::object({{"type", "ByteLevel"},
                           {"add_prefix_space", true},
                           {"trim_offsets", true},
                           {"use_regex", true}});
    case DecodeStep::replace:
      return Json::object(
          {{"type", "Replace"}, {"pattern", pattern(s.pattern)}, {"content", s.content}});
    case DecodeStep::byte_fallback:
      return Json::object({{"type", "ByteFallback"}});
    case DecodeStep::strip:
      return Json::object(
          {{"type", "Strip"}, {"content", s.content}, {"start", s.start}, {"stop", s.stop}});
    case DecodeStep::metaspace:
      return Json::object({{"type", "Metaspace"},
                           {"replacement", s.content},
                           {"prepend_scheme", prepend_name(s.prepend)},
                           {"split", true}});
    case DecodeStep::suffix:
      return Json::object({{"type", "BPEDecoder"}, {"suffix", s.content}});
    case DecodeStep::word_piece:
      return Json::object({{"type", "WordPiece"}, {"prefix", s.content}, {"cleanup", s.cleanup}});
    case DecodeStep::ctc:
      return Json::object({{"type", "CTC"},
                           {"pad_token", s.content},
                           {"word_delimiter_token", s.delimiter},
                           {"cleanup", s.cleanup}});
    case DecodeStep::fuse:
      break;
  }
  return Json::object({{"type", "Fuse"}});
}

// None: null; one: itself; more: a Sequence.
template <class Steps>
Json chain(const Steps& steps, const char* list) {
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return component(steps[0]);
  Json parts = Json::array();
  for (const auto& s : steps) parts.push_back(component(s));
  return Json::object({{"type", "Sequence"}, {list, parts}});
}

Json post_processor(const Tokenizer& t) {
  const TokenizerSpec& spec = t.spec();
  if (spec.prefix.empty() && spec.suffix.empty()) return nullptr;
  Json one = Json::array(), specials = Json::object();
  const auto special = [&](int32_t id, int type) {
    const std::string name(t.token(id));
    specials.set(
        name,
        Json::object({{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}}));
    return Json::object({{"SpecialToken", Json::object({{"id", name}, {"type_id", type}})}});
  };
  const auto around = [&](const char* name, int type, Json& out) {
    for (const int32_t id : spec.prefix) out.push_back(special(id, type));
    out.push_back(Json::object({{"Sequence", Json::object({{"id", name}, {"type_id", type}})}}));
    for (const int32_t id : spec.suffix) out.push_back(special(id, type));
  };
  around("A", 0, one);
  Json pair = one;
  around("B", 1, pair);
  return Json::object({{"type", "TemplateProcessing"},
                       {"single", one},
                       {"pair", pair},
                       {"special_tokens", specials}});
}

// By hand: an ordered JSON object would search all keys at each insertion.
std::string vocab_json(const ModelSpec& m) {
  std::string out = "{";
  bool first = true;
  for (size_t id = 0; id < m.tokens.size(); ++id) {
    if (m.tokens[id].empty()) continue;
    out += fmt::format("{}{}:{}", first ? "" : ",", io::json_quoted(m.tokens[id]), id);
    first = false;
  }
  return out + "}";
}

std::string bpe_json(const ModelSpec& m) {
  const auto optional = [](const std::string& s) {
    return s.empty() ? std::string("null") : io::json_quoted(s);
  };
  std::string out =
      fmt::format(R"({{"type":"BPE","dropout":null,"unk_token":{},)"
                  R"("continuing_subword_prefix":{},"end_of_word_suffix":{},"fuse_unk":{},)"
                  R"("byte_fallback":{},"ignore_merges":{},"vocab":{},"merges":[)",
                  optional(m.unk_token), optional(m.subword_prefix), optional(m.word_suffix),
                  m.fuse_unk, m.byte_fallback, m.ignore_merges, vocab_json(m));
  for (size_t i = 0; i < m.merges.size(); ++i) {
    const MergeRule& r = m.merges[i];
    out += fmt::format("{}[{},{}]", i ? "," : "",
                       io::json_quoted(m.tokens[static_cast<size_t>(r.left)]),
                       io::json_quoted(m.tokens[static_cast<size_t>(r.right)]));
  }
  return out + "]}";
}

std::string unigram_json(const ModelSpec& m) {
  std::string out = fmt::format(R"({{"type":"Unigram","unk_id":{},"byte_fallback":{},"vocab":[)",
                                m.unk_id < 0 ? "null" : std::to_string(m.unk_id), m.byte_fallback);
  for (size_t id = 0; id < m.tokens.size(); ++id)
    out += fmt::format("{}[{},{}]", id ? "," : "", io::json_quoted(m.tokens[id]),
                       Json(m.scores[id]).dump());
  return out + "]}";
}

std::string model_json(const ModelSpec& m) {
  switch (m.kind) {
    case ModelSpec::unigram:
      return unigram_json(m);
    case ModelSpec::word_piece:
      return fmt::format(R"({{"type":"WordPiece","unk_token":{},"continuing_subword_prefix":{},)"
                         R"("max_input_chars_per_word":{},"vocab":{}}})",
                         io::json_quoted(m.unk_token), io::json_quoted(m.subword_prefix),
                         m.longest_word, vocab_json(m));
    case ModelSpec::word_level:
      return fmt::format(R"({{"type":"WordLevel","unk_token":{},"vocab":{}}})",
                         io::json_quoted(m.unk_token), vocab_json(m));
    case ModelSpec::bpe:
      break;
  }
  return bpe_json(m);
}

}  // namespace

HfTokenizerFiles to_hf_json(const Tokenizer& tokenizer, std::string_view chat_template) {
  const TokenizerSpec& spec = tokenizer.spec();
  HfTokenizerFiles out;
  Json added = Json::array();
  for (const AddedToken& t : spec.added)
    added.push_back(Json::object({{"id", t.id},
                                  {"content", t.content},
                                  {"single_word", t.single_word},
                                  {"lstrip", t.lstrip},
                                  {"rstrip", t.rstrip},
                                  {"normalized", t.normalized},
                                  {"special", t.special}}));
  out.tokenizer_json =
      fmt::format(R"({{"version":"1.0","truncation":null,"padding":null,)"
                  R"("added_tokens":{},"normalizer":{},"pre_tokenizer":{},"post_processor":{},)"
                  R"("decoder":{},"model":{}}})",
                  added.dump(), chain(spec.normalizers, "normalizers").dump(),
                  chain(spec.pre_steps, "pretokenizers").dump(), post_processor(tokenizer).dump(),
                  chain(spec.decoders, "decoders").dump(), model_json(spec.model));
  Json config = Json::object({{"tokenizer_class", "PreTrainedTokenizerFast"},
                              {"clean_up_tokenization_spaces", false}}),
       map = Json::object();
  const std::pair<const char*, int32_t> roles[] = {{"bos_token", spec.bos},
                                                   {"eos_token", spec.eos},
                                                   {"unk_token", spec.unk},
                                                   {"pad_token", spec.pad}};
  for (const auto& [role, id] : roles)
    if (id >= 0) config.set(role, tokenizer.token(id)), map.set(role, tokenizer.token(id));
  if (!chat_template.empty()) config.set("chat_template", chat_template);
  out.tokenizer_config_json = config.dump(2) + "\n";
  out.special_tokens_map_json = map.dump(2) + "\n";
  return out;
}

}  // namespace supersonic::text
