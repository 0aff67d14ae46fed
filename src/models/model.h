// A loaded model: its sizes, its layers' weights as storages (mapped from the file where they can be), and the names by which
// GGUF and Hugging Face know them. Architectures of the Llama family share one forward pass (llama.cpp).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "io/model_config.h"
#include "nn/linear.h"

namespace supersonic {
struct Backend;
}

namespace supersonic::models {

struct Layer {
  StorageRef attention_norm, mlp_norm;  // (d_model) f32
  nn::Linear q, k, v, o, gate, up, down;
};

struct Model {
  io::ModelConfig config;
  std::string path;
  bool from_gguf = false;
  bool interleaved_rope = false;  // q and k rows as GGUF's llama architecture stores them
  StorageRef embedding;           // (vocab, d_model)
  StorageRef head;                // the same storage when tied
  StorageRef final_norm;          // (d_model) f32
  StorageRef inv_freq;            // (head_dim / 2) f32, scaled for long contexts
  float rope_magnitude = 1;       // YaRN's attention factor
  std::vector<Layer> layers;

  std::int64_t parameters() const;
  std::size_t weight_bytes() const;
  std::vector<nn::Linear*> linears();  // the seven of each layer, in order
  std::vector<const nn::Linear*> linears() const;
};

struct LoadOptions {
  std::string base;  // "", or a format that 16-bit linear weights are quantized to while they load: "nf4", "q4_0", "q8_0"
};

// path: a GGUF file or a Hugging Face folder. Throws Error(bad_file) for what is malformed or unknown, naming the tensor.
Model load_model(const std::string& path, const LoadOptions& options = {});

// Uploads the weights once to where the backend's kernels work, so that plans read them in place; nothing to do on the CPU. What lies
// there cannot be exported: keep the loaded model for that, or load it again.
void make_resident(Model& model, Backend& backend);

// Throws Error(usage) where the model's rotation is not computed for positions 0 … tokens - 1: "dynamic" RoPE scaling turns
// every token in another way once a text is longer than max_position_embeddings.
void check_context(const Model& model, std::int64_t tokens);

// The frequencies of rotary embedding, scaled as the config says (linear, llama3, yarn); magnitude: YaRN's attention factor.
std::vector<float> rope_frequencies(const io::ModelConfig& config, float& magnitude);

// "model.layers.3.mlp.up_proj" <-> "blk.3.ffn_up"
std::string gguf_name(const std::string& hf_module);
std::string hf_name(const std::string& gguf_module);

}  // namespace supersonic::models
