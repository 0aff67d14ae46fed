// What a decoder-only model is made of, as plain numbers: the description that the one forward pass
// (models/decoder.cpp) records from. Filled from a Hugging Face config.json or from a GGUF file's
// metadata by the model's architecture (io/architecture.h), validated in one place, so that whoever
// reads it may divide and allocate without checking again.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::io {

struct RopeScaling {
  enum class Kind { none, linear, dynamic, llama3, yarn, longrope };
  Kind kind = Kind::none;
  double factor = 1.0;                     // >= 1
  std::int64_t original_max_position = 0;  // the context before scaling; 0: max_position_embeddings
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  bool truncate = true;           // yarn: its ramp begins and ends at whole frequencies
  double attention_factor = 0.0;  // yarn, longrope; 0: what the factor implies
  // longrope: one divisor a frequency, for contexts up to original_max_position and beyond.
  std::vector<double> short_factor, long_factor;
};
std::string_view name_of(RopeScaling::Kind kind);
// What turned queries and keys are multiplied by under longrope: stated, or sqrt(1 + ln factor / ln
// original).
double longrope_magnitude(const RopeScaling& scaling);

// Where a block's RMS norms stand: before it (Llama), on what it adds to the residual (OLMo 2), or
// both (Gemma).
enum class NormPlace { before, after, around };
// RMS norm of queries and keys before they turn: of each head (Qwen3), or of the whole projection
// (OLMo 2).
enum class QkNorm { none, head, projection };
// The gated activation: silu(gate) * up, gelu(gate) * up with tanh, or gpt-oss's, which clamps both
// and adds 1 to up.
enum class Gate { silu, gelu_tanh, clamped_silu };

// A mixture of experts in place of a layer's MLP: each token goes through the `used` experts that
// its router scores highest.
struct Experts {
  std::int64_t count = 0, used = 0;  // 0: no experts
  std::int64_t width = 0;            // of one expert's MLP
  bool renormalise = true;           // weights of the chosen ones sum to 1
  std::vector<std::uint8_t>
      dense_layers;   // 1: this layer has an MLP of intermediate_size; empty: none
  bool bias = false;  // router and experts have biases (gpt-oss)
};

struct ModelConfig {
  std::string family = "llama";  // the name of its io::Architecture
  std::string architecture;      // "LlamaForCausalLM"; from a GGUF, the family's usual class
  std::string text_part_of;      // the class of a model that reads images too; empty: text alone
  std::string name;              // of the model, where the file has one
  std::int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  std::int64_t vocab_size = 0, max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;

  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  std::int64_t rotary_dim = 0;  // the first dimensions of a head that turn; 0: all
  double local_rope_theta = 0;  // of sliding layers, which are not scaled then; 0: as the others
  std::vector<std::uint8_t>
      unrotated_layers;  // 1: this layer does not turn (NoPE); empty: all turn

  bool tie_word_embeddings = false;  // the output layer is the embedding
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  std::int64_t sliding_window = 0;  // tokens; 0: full attention everywhere
  std::vector<std::uint8_t>
      sliding_layers;  // 1: this layer slides; empty: all do when sliding_window > 0

  NormPlace norms = NormPlace::before;
  QkNorm qk_norm = QkNorm::none;
  Gate gate = Gate::silu;
  bool fused = false;            // q, k, v are one matrix, gate and up another (Phi-3)
  bool attention_sinks = false;  // each head has a score that takes weight and gives nothing
  Experts experts;

  double embedding_scale = 1, residual_scale = 1;  // of the embedding; of what a block adds
  double attention_scale = 0;                      // of scores; 0: 1 / sqrt(head_dim)
  double logit_scale = 1;
  double attention_cap = 0, logit_cap = 0;  // c tanh(x / c) of scores and logits; 0: none

  std::vector<std::int64_t> bos_token_ids, eos_token_ids;
  std::int64_t pad_token_id = -1;  // -1: none
  std::string dtype;  // of the stored weights, as config.json says: "bfloat16"; may be empty

  bool slides(std::int64_t layer) const {
    return sliding_window > 0 &&
           (sliding_layers.empty() || sliding_layers[static_cast<std::size_t>(layer)]);
  }
  bool rotates(std::int64_t layer) const {
    return unrotated_layers.empty() || !unrotated_layers[static_cast<std::size_t>(layer)];
  }
  bool has_experts(std::int64_t layer) const {
    return experts.count > 0 &&
           (experts.dense_layers.empty() || !experts.dense_layers[static_cast<std::size_t>(layer)]);
  }
  std::int64_t rotary() const { return rotary_dim ? rotary_dim : head_dim; }
};

// What sets the model apart from a plain Llama, for people: "q/k norm, window 512 in 15 of 18
// layers, …"; empty for a Llama.
std::string special_features(const ModelConfig& config);

// Throws Error(bad_file) for what no working model has; source is for messages.
void validate(const ModelConfig& config, const std::string& source);

class GgufFile;
class GgufWriter;

// From an open GGUF file of an architecture that is known. Llama 3's frequency scaling is not in
// the metadata there but in the tensor rope_freqs.weight, which is the model code's business.
ModelConfig model_config_from_gguf(const GgufFile& file);
// The metadata that llama.cpp needs to build the graph: architecture and sizes, not the tokenizer.
void write_gguf_config(GgufWriter& out, const ModelConfig& config);

}  // namespace supersonic::io
