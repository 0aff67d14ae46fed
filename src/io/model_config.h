// What a model of the Llama family is made of, as plain numbers: filled from a Hugging Face
// config.json or from a GGUF file's metadata, validated in one place, so that whoever reads it may
// divide and allocate without checking again.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::io {

enum class Family { llama, mistral, qwen2 };
std::string_view name_of(Family family);

struct RopeScaling {
  enum class Kind { none, linear, dynamic, llama3, yarn };
  Kind kind = Kind::none;
  double factor = 1.0;                     // >= 1
  std::int64_t original_max_position = 0;  // the context before scaling; 0: max_position_embeddings
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  double attention_factor = 0.0;                         // yarn; 0: 0.1 ln(factor) + 1
};
std::string_view name_of(RopeScaling::Kind kind);

struct ModelConfig {
  Family family = Family::llama;
  std::string architecture;  // "LlamaForCausalLM"; from a GGUF, the family's usual class
  std::string name;          // of the model, where the file has one
  std::int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  std::int64_t vocab_size = 0, max_position_embeddings = 0;
  double rms_norm_eps = 1e-6, rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;  // the output layer is the embedding
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  std::int64_t sliding_window = 0;  // tokens; 0: full attention everywhere
  std::vector<std::uint8_t>
      sliding_layers;  // 1: this layer slides; empty: all do when sliding_window > 0
  std::vector<std::int64_t> bos_token_ids, eos_token_ids;
  std::int64_t pad_token_id = -1;  // -1: none
  std::string dtype;  // of the stored weights, as config.json says: "bfloat16"; may be empty

  bool slides(std::int64_t layer) const {
    return sliding_window > 0 &&
           (sliding_layers.empty() || sliding_layers[static_cast<std::size_t>(layer)]);
  }
};

// Throws Error(bad_file) for what no working model has; source is for messages.
void validate(const ModelConfig& config, const std::string& source);

class GgufFile;
class GgufWriter;

// From an open GGUF file of architecture llama or qwen2. Llama 3's frequency scaling is not in the
// metadata there but in the tensor rope_freqs.weight, which is the model code's business.
ModelConfig model_config_from_gguf(const GgufFile& file);
// The metadata that llama.cpp needs to build the graph: architecture and sizes, not the tokenizer.
void write_gguf_config(GgufWriter& out, const ModelConfig& config);

}  // namespace supersonic::io
