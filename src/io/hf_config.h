// The JSON files of a Hugging Face model folder as plain structs. Unknown keys are ignored, wrong
// types and ranges are errors that name file and field; an architecture that this engine does not
// have is refused with the list of those it has.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/model_config.h"

namespace supersonic::io {

// source is for messages.
ModelConfig model_config_from_json(std::string_view text, const std::string& source);
ModelConfig read_model_config(
    const std::string& folder);  // config.json, bos/eos completed from generation_config.json
std::string to_config_json(const ModelConfig& config);  // a config.json that transformers loads

struct GenerationConfig {  // generation_config.json; what the file does not say stays empty
  std::vector<std::int64_t> bos_token_ids, eos_token_ids;
  std::optional<std::int64_t> pad_token_id, top_k, max_new_tokens;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<bool> do_sample;
};
GenerationConfig generation_config_from_json(std::string_view text, const std::string& source);
GenerationConfig read_generation_config(
    const std::string& folder);  // all empty when there is no such file

struct TokenizerConfig {  // tokenizer_config.json, special_tokens as their text
  std::string tokenizer_class;
  std::optional<std::string> bos_token, eos_token, unk_token, pad_token;
  std::optional<bool> add_bos_token, add_eos_token, add_prefix_space, legacy,
      clean_up_tokenization_spaces;
  std::vector<std::pair<std::string, std::string>>
      chat_templates;  // name, text; a single one is "default"
};
TokenizerConfig tokenizer_config_from_json(std::string_view text, const std::string& source);
// chat_template.jinja, where there is one, replaces the "default" template. All empty when there is
// no such file.
TokenizerConfig read_tokenizer_config(const std::string& folder);

}  // namespace supersonic::io
