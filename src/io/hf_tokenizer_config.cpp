// generation_config.json and tokenizer_config.json; see hf_config.h.
#include <filesystem>

#include "core/error.h"
#include "io/hf_config.h"
#include "io/json.h"
#include "io/json_fields.h"
#include "io/output_file.h"

namespace supersonic::io {

namespace {

// tokenizer_config.json lists added tokens and may hold several templates.
constexpr JsonLimits kLimits{
    .max_bytes = std::size_t{64} << 20, .max_depth = 32, .max_values = 4'000'000};
constexpr std::int64_t kMaxId = std::int64_t{1} << 31;
constexpr std::uint64_t kMaxTemplate = std::uint64_t{1} << 20;

// A special token is its text, or an object with its text as "content".
std::optional<std::string> special_token(const JsonFields& f, const char* key) {
  const JsonView value = f.find(key);
  if (!value) return std::nullopt;
  if (value.is_object()) {
    const auto content = f.object(key).string("content");
    if (!content) f.bad(key, "a token with its content");
    return content;
  }
  return f.string(key);
}

void read_templates(TokenizerConfig& c, const JsonFields& f) {
  const JsonView value = f.find("chat_template");
  if (!value) return;
  if (value.is_string()) {
    c.chat_templates.emplace_back("default", *value.text());
  } else {
    if (!value.is_array()) f.bad("chat_template", "a string or a list of {name, template}");
    for (const JsonView& item : value.items()) {
      const JsonFields t(item, f.file(), "chat_template[].");
      auto name = t.string("name"), text = t.string("template");
      if (!name) t.bad("name", "a string");
      if (!text) t.bad("template", "a string");
      c.chat_templates.emplace_back(std::move(*name), std::move(*text));
    }
  }
  for (const auto& [name, text] : c.chat_templates)
    CHECK_FILE(text.size() <= kMaxTemplate,
               "{}: chat_template \"{}\" has {} bytes, at most {} are allowed", f.file(),
               name.substr(0, 100), text.size(), kMaxTemplate);
}

}  // namespace

GenerationConfig generation_config_from_json(std::string_view text, const std::string& source) {
  const JsonDocument root(text, source, kLimits);
  const JsonFields f(root, source);
  GenerationConfig g;
  g.bos_token_ids = f.integers("bos_token_id", 0, kMaxId);
  g.eos_token_ids = f.integers("eos_token_id", 0, kMaxId);
  g.pad_token_id = f.integer("pad_token_id", -1, kMaxId);
  g.top_k = f.integer("top_k", 0, kMaxId);
  g.max_new_tokens = f.integer("max_new_tokens", 0, kMaxId);
  g.temperature = f.real("temperature", 0, 1e6);
  g.top_p = f.real("top_p", 0, 1);
  g.min_p = f.real("min_p", 0, 1);
  g.repetition_penalty = f.real("repetition_penalty", 1e-6, 1e6);
  g.do_sample = f.boolean("do_sample");
  return g;
}

GenerationConfig read_generation_config(const std::string& folder) {
  const auto path = std::filesystem::path(folder) / "generation_config.json";
  if (!std::filesystem::exists(path)) return {};
  return generation_config_from_json(read_file(path.string(), kLimits.max_bytes), path.string());
}

TokenizerConfig tokenizer_config_from_json(std::string_view text, const std::string& source) {
  const JsonDocument root(text, source, kLimits);
  const JsonFields f(root, source);
  TokenizerConfig c;
  c.tokenizer_class = f.string("tokenizer_class").value_or("");
  c.bos_token = special_token(f, "bos_token");
  c.eos_token = special_token(f, "eos_token");
  c.unk_token = special_token(f, "unk_token");
  c.pad_token = special_token(f, "pad_token");
  c.add_bos_token = f.boolean("add_bos_token");
  c.add_eos_token = f.boolean("add_eos_token");
  c.add_prefix_space = f.boolean("add_prefix_space");
  c.legacy = f.boolean("legacy");
  c.clean_up_tokenization_spaces = f.boolean("clean_up_tokenization_spaces");
  read_templates(c, f);
  return c;
}

TokenizerConfig read_tokenizer_config(const std::string& folder) {
  const std::filesystem::path dir(folder);
  TokenizerConfig c;
  if (const auto path = dir / "tokenizer_config.json"; std::filesystem::exists(path))
    c = tokenizer_config_from_json(read_file(path.string(), kLimits.max_bytes), path.string());
  if (const auto path = dir / "chat_template.jinja"; std::filesystem::exists(path)) {
    std::erase_if(c.chat_templates, [](const auto& t) { return t.first == "default"; });
    c.chat_templates.emplace(c.chat_templates.begin(), "default",
                             read_file(path.string(), kMaxTemplate));
  }
  return c;
}

}  // namespace supersonic::io
