// The table of names. A row gives the regular expressions that cut the text in turn (matches stand
// alone), before ByteLevel.
#include "text/pre_types.h"

#include <algorithm>

#include "text/scanners.h"

namespace supersonic::text {
namespace {

constexpr std::string_view kDigits = R"(\p{N})";  // Digits with individual_digits
constexpr std::string_view kGpt2 = "gpt2";        // ByteLevel's own regex
constexpr std::string_view kLlama3 = "llama3", kQwen2 = "qwen2", kQwen35 = "qwen35",
                           kO200k = "o200k", kTekken = "tekken";
constexpr std::string_view kDeepseekLetters =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-"
    "ᲺᲽ-"
    "Ჿᴀ-"
    "ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌ"
    "ῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-"
    "ﬗＡ-"
    "Ｚａ-"
    "ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
constexpr std::string_view kDeepseekV3Main = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
                                             "\r\n"
                                             R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
                                             "\r\n"
                                             R"(]*|\s*[)"
                                             "\r\n"
                                             R"(]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSpark = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
                                    "\r\n"
                                    R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[)"
                                    "\r\n"
                                    R"(]|\s+(?!\S)|\s+)";
constexpr std::string_view kYoutu =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kJais2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})";
// The original intersects classes with "not Han" (&&[^\p{Han}]); a look-ahead says the same.
constexpr std::string_view kKimi =
    R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])*(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])+(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Groups of three digits, counted from the end of a run.
constexpr std::string_view kDigitGroups = "digit groups", kWordDigitGroups = "word's digit groups",
                           kDigitCuts = "digit cuts";
constexpr std::string_view kLines = "[^\\n]+|[\\n]+";
constexpr std::string_view kBloom = " ?[^(\\s|.,!?…。，、।۔،)]+";

struct Row {
  std::string_view name;
  std::vector<std::string_view> cuts;
  bool ignore_merges = false, add_bos = false, nfc = false;
  bool characters = false;  // no bytes: spaces are U+2581, unknown characters byte tokens
};

const std::vector<Row>& rows() {
  static const std::vector<Row> table = {
      {.name = "llama-bpe", .cuts = {kLlama3}, .ignore_merges = true, .add_bos = true},
      {.name = "qwen2", .cuts = {kQwen2}, .nfc = true},
      {.name = "qwen35", .cuts = {kQwen35}},
      {.name = "gpt-2", .cuts = {kGpt2}},
      {.name = "smollm", .cuts = {kDigits, kGpt2}},
      {.name = "command-r", .cuts = {kDigits, kGpt2}, .nfc = true},
      {.name = "gpt-4o", .cuts = {kO200k}},
      {.name = "tekken", .cuts = {kTekken}, .ignore_merges = true, .add_bos = true},
      {.name = "dbrx", .cuts = {kLlama3}},
      {.name = "glm4", .cuts = {kLlama3}, .ignore_merges = true},
      {.name = "stablelm2", .cuts = {kQwen2}},
      {.name = "deepseek-llm",
       .cuts = {"[\r\n]", kDeepseekLetters, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$",
                "[一-龥ࠀ-一가-퟿]+", kDigits}},
      {.name = "deepseek-coder",
       .cuts = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", kDigits}},
      {.name = "deepseek-v3", .cuts = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", kDeepseekV3Main}},
      {.name = "minicpm5",
       .cuts =
           {"\\p{N}{1,3}",
            R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .ignore_merges = true},
      {.name = "bailingmoe",
       .cuts =
           {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"}},
      {.name = "seed-coder",
       .cuts =
           {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {.name = "exaone-moe",
       .cuts =
           {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"}},
      {.name = "ufakzeka",
       .cuts =
           {R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {.name = "tiny_aya", .cuts = {kWordDigitGroups, kO200k}},
      {.name = "jais-2", .cuts = {kJais2}},
      {.name = "spark2_5", .cuts = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", kSpark, "\\p{N}"}},
      {.name = "youtu",
       .cuts = {"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-"
                "ヿ]"
                "+",
                kYoutu},
       .ignore_merges = true},
      {.name = "chameleon",
       .cuts = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )",
                kDigits, "[\\p{P}!-/:-@\\[-`{-~]", kGpt2},
       .add_bos = true},
      {.name = "kimi-k2", .cuts = {kKimi}},
      {.name = "afmoe",
       .cuts = {kDigitGroups,
                "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-"
                "힯ᄀ-"
                "ᇿ]+",
                kDeepseekV3Main}},
      {.name = "granite-embed-multi-97m", .cuts = {kO200k}, .ignore_merges = true},
      {.name = "gemma4", .cuts = {kLines}, .characters = true},
      {.name = "laguna", .cuts = {kLines, kQwen2}},
      {.name = "superbpe", .cuts = {"\\p{N}+", kDigitCuts}},
      {.name = "bloom", .cuts = {kBloom}},
      {.name = "viking", .cuts = {kBloom, kDigits}},
      {.name = "default",
       .cuts = {"[\\p{P}\\$\\+<=>\\^~\\|]+", kGpt2, "\\p{N}+", "[0-9][0-9][0-9]"}},
  };
  return table;
}

struct Alias {
  std::string_view name, row;
};
constexpr Alias kAliases[] = {
    {"", "default"},
    {"llama3", "llama-bpe"},
    {"llama-v3", "llama-bpe"},
    {"falcon3", "llama-bpe"},
    {"falcon-h1", "llama-bpe"},
    {"pixtral", "llama-bpe"},
    {"midm-2.0", "llama-bpe"},
    {"lfm2", "llama-bpe"},
    {"jina-v5-nano", "llama-bpe"},
    {"deepseek-r1-qwen", "qwen2"},
    {"kormo", "qwen2"},
    {"f2llmv2", "qwen2"},
    {"megrez", "qwen2"},
    {"hunyuan", "stablelm2"},
    {"solar-open", "stablelm2"},
    {"grok-2", "stablelm2"},
    {"phi-2", "gpt-2"},
    {"jina-es", "gpt-2"},
    {"jina-de", "gpt-2"},
    {"jina-v2-es", "gpt-2"},
    {"jina-v2-de", "gpt-2"},
    {"gigachat", "gpt-2"},
    {"a.x-4.0", "gpt-2"},
    {"mellum", "gpt-2"},
    {"modern-bert", "gpt-2"},
    {"exaone4", "gpt-2"},
    {"mpt", "gpt-2"},
    {"olmo", "gpt-2"},
    {"jais", "gpt-2"},
    {"jina-v1-en", "gpt-2"},
    {"jina-v2-code", "gpt-2"},
    {"roberta-bpe", "gpt-2"},
    {"granite-embed-multi-311m", "gemma4"},
    {"sarvam-moe", "gemma4"},
    {"trillion", "gpt-2"},
    {"granite-docling", "gpt-2"},
    {"starcoder", "smollm"},
    {"refact", "smollm"},
    {"codeshell", "smollm"},
    {"exaone", "smollm"},
    {"minerva-7b", "smollm"},
    {"mellum2", "smollm"},
    {"llama4", "gpt-4o"},
    {"kanana2", "gpt-4o"},
    {"talkie", "gpt-4o"},
    {"minimax-m2", "gpt-4o"},
    {"smaug-bpe", "dbrx"},
    {"chatglm-bpe", "dbrx"},
    {"glm5", "glm4"},
    {"hunyuan-dense", "deepseek-v3"},
    {"joyai-llm", "deepseek-v3"},
    {"hy_v4", "deepseek-v3"},
    {"bailingmoe2", "bailingmoe"},
    {"llada-moe", "bailingmoe"},
    {"cohere2moe", "tiny_aya"},
    {"poro-chat", "bloom"},
    {"gpt3-finnish", "bloom"},
};

std::string_view pattern_of(std::string_view cut) {
  if (cut == kGpt2) return kGpt2Pattern;
  if (cut == kLlama3) return kLlama3Pattern;
  if (cut == kQwen2) return kQwen2Pattern;
  if (cut == kQwen35) return kQwen35Pattern;
  if (cut == kO200k) return kO200kPattern;
  if (cut == kTekken) return kTekkenPattern;
  if (cut == kDigitGroups) return kDigitGroupsPattern;
  if (cut == kWordDigitGroups) return kWordDigitGroupsPattern;
  if (cut == kDigitCuts) return kDigitCutsPattern;
  return cut;
}

std::vector<PreStep> steps_of(const Row& row) {
  std::vector<PreStep> steps;
  for (const std::string_view& cut : row.cuts) {
    if (cut == kGpt2 && &cut == &row.cuts.back()) {  // ByteLevel brings this cut with it
      steps.push_back({.kind = PreStep::byte_level, .pattern = {}});
      return steps;
    }
    if (cut == kDigits)
      steps.push_back({.kind = PreStep::digits, .pattern = {}, .individual = true});
    else
      steps.push_back({.kind = PreStep::split, .pattern = {std::string(pattern_of(cut)), true}});
  }
  if (!row.characters)
    steps.push_back({.kind = PreStep::byte_level, .pattern = {}, .use_regex = false});
  return steps;
}

// Falcon's own order: digits are cut after the bytes are mapped.
PreType falcon() {
  PreType type;
  type.steps = {{.kind = PreStep::punctuation, .pattern = {}, .behavior = Behavior::contiguous},
                {.kind = PreStep::byte_level, .pattern = {}},
                {.kind = PreStep::digits, .pattern = {}},
                {.kind = PreStep::split, .pattern = {"[0-9][0-9][0-9]", true}}};
  type.decoders = {{.kind = DecodeStep::byte_level}};
  return type;
}

// Words between white space, in characters.
PreType white_space() {
  PreType type;
  type.steps = {{.kind = PreStep::whitespace_split}};
  type.decoders = {{.kind = DecodeStep::fuse}};
  return type;
}

void on_characters(PreType& type) {
  constexpr const char* kSpacePiece = "\xE2\x96\x81";
  type.normalizers.push_back(
      {.kind = NormalizerStep::replace, .pattern = {" ", false}, .content = kSpacePiece});
  type.decoders = {{.kind = DecodeStep::replace, .pattern = {kSpacePiece, false}, .content = " "},
                   {.kind = DecodeStep::byte_fallback},
                   {.kind = DecodeStep::fuse}};
}

// What decides the words, independent of how a pipeline spells it (a digit split may be Digits or a
// regex).
std::vector<std::string> signature(const std::vector<PreStep>& steps) {
  std::vector<std::string> cuts;
  for (const PreStep& s : steps) {
    if (s.kind == PreStep::split && s.pattern.regex &&
        (s.behavior == Behavior::isolated || s.invert))
      cuts.push_back(s.pattern.text);
    else if (s.kind == PreStep::digits && s.individual)
      cuts.emplace_back(kDigits);
    else if (s.kind == PreStep::byte_level && !s.add_prefix_space && s.use_regex)
      cuts.emplace_back(kGpt2Pattern);
    else if (s.kind != PreStep::byte_level || s.add_prefix_space)
      cuts.emplace_back("?");
  }
  return cuts;
}

}  // namespace

bool find_pre_type(std::string_view name, PreType& out) {
  if (name == "falcon" || name == "whitespace") {
    out = name == "falcon" ? falcon() : white_space();
    return true;
  }
  const auto alias = std::find_if(std::begin(kAliases), std::end(kAliases),
                                  [&](const Alias& a) { return a.name == name; });
  if (alias != std::end(kAliases)) name = alias->row;
  for (const Row& row : rows()) {
    if (row.name != name) continue;
    out = {.steps = steps_of(row),
           .normalizers = {},
           .decoders = {},
           .ignore_merges = row.ignore_merges,
           .add_bos = row.add_bos,
           .byte_fallback = row.characters};
    if (row.nfc) out.normalizers.push_back({.kind = NormalizerStep::nfc});
    if (row.characters)
      on_characters(out);
    else
      out.decoders.push_back({.kind = DecodeStep::byte_level});
    return true;
  }
  return false;
}

std::string_view name_pre_type(const TokenizerSpec& spec) {
  const auto cuts = signature(spec.pre_steps);
  const Row* fallback = nullptr;
  const bool nfc =
      std::any_of(spec.normalizers.begin(), spec.normalizers.end(),
                  [](const NormalizerStep& n) { return n.kind == NormalizerStep::nfc; });
  for (const Row& row : rows()) {
    if (row.characters || signature(steps_of(row)) != cuts) continue;
    if (row.ignore_merges == spec.model.ignore_merges && row.nfc == nfc) return row.name;
    if (!fallback && row.ignore_merges == spec.model.ignore_merges) fallback = &row;
  }
  return fallback ? fallback->name : std::string_view();
}

}  // namespace supersonic::text
