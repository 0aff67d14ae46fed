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
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-"
    "ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌ"
    "ῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-"
    "ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
constexpr std::string_view kDeepseekV3Main = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
                                             "\r\n"
                                             R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
                                             "\r\n"
                                             R"(]*|\s*[)"
                                             "\r\n"
                                             R"(]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBloom = " ?[^(\\s|.,!?…。，、।۔،)]+";

struct Row {
  std::string_view name;
  std::vector<std::string_view> cuts;
  bool ignore_merges = false, add_bos = false, nfc = false;
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
      {.name = "tiny_aya", .cuts = {R"(\d{1,3}(?=(?:\d{3})*\b))", kO200k}},
      {.name = "laguna", .cuts = {"[^\\n]+|[\\n]+", kQwen2}},
      {.name = "superbpe", .cuts = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
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
  return type;
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
  if (name == "falcon") {
    out = falcon();
    return true;
  }
  const auto alias = std::find_if(std::begin(kAliases), std::end(kAliases),
                                  [&](const Alias& a) { return a.name == name; });
  if (alias != std::end(kAliases)) name = alias->row;
  for (const Row& row : rows()) {
    if (row.name != name) continue;
    out = {.steps = steps_of(row),
           .normalizers = {},
           .ignore_merges = row.ignore_merges,
           .add_bos = row.add_bos};
    if (row.nfc)
      out.normalizers.push_back({.kind = NormalizerStep::nfc, .pattern = {}, .content = {}});
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
    if (signature(steps_of(row)) != cuts) continue;
    if (row.ignore_merges == spec.model.ignore_merges && row.nfc == nfc) return row.name;
    if (!fallback && row.ignore_merges == spec.model.ignore_merges) fallback = &row;
  }
  return fallback ? fallback->name : std::string_view();
}

}  // namespace supersonic::text
