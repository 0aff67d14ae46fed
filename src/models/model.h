// A loaded model: its description, its layers' weights as storages (mapped from the file where they can be), and the names by which
// GGUF and Hugging Face know them. What a layer has follows from the description (io/model_config.h); the rest stays empty. One
// forward pass records all of them (decoder.cpp), and everything that goes over a model's tensors does so through parts.h.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "io/model_config.h"
#include "nn/experts.h"
#include "nn/linear.h"

namespace supersonic {
struct Backend;
}

namespace supersonic::models {

struct Layer {
  StorageRef attention_norm, attention_post_norm, mlp_norm, mlp_post_norm;  // (d_model) f32
  StorageRef q_norm, k_norm;  // (head_dim), or (heads * head_dim), f32
  StorageRef sinks;           // (heads) f32
  nn::Linear q, k, v, qkv, o, gate, up, gate_up, down;
  nn::Linear router;                                   // (experts, d_model)
  nn::Experts expert_gate, expert_up, expert_down;
};

// What one adapter of a layer's experts changes: gate and up together, which transformers has in one parameter, or down.
struct ExpertGroup {
  std::string name;                   // of that parameter: "model.layers.0.mlp.experts.gate_up_proj"
  std::vector<nn::Experts*> layers;  // gate and up, or down
  void set_slot(int slot) const;      // of the LoraSet, or -1
};

// How queries and keys turn.
struct Rotation {
  StorageRef inv_freq;  // (rotary / 2) f32, scaled for long contexts
  float magnitude = 1;  // what turned values are multiplied by: YaRN's and longrope's attention factor
};

// Where a folder has the text model's tensors: of a model that reads images too, their names have another beginning.
struct TextPlace {
  std::string_view body = "model.", head = "lm_head.";
  // The name in the folder of a tensor that is called `name` in a folder of text alone.
  std::string stored(std::string_view name) const;
};

struct Model {
  io::ModelConfig config;
  std::string path;
  TextPlace text;
  bool from_gguf = false;
  bool interleaved_rope = false;  // q and k rows as GGUF's llama architecture stores them
  StorageRef embedding;           // (vocab, d_model)
  StorageRef head;                // the same storage when tied
  StorageRef final_norm;          // (d_model) f32
  Rotation rope;
  Rotation local_rope;  // of sliding layers, where they turn differently; empty otherwise
  Rotation long_rope;   // longrope: of contexts beyond the original one; empty otherwise
  std::vector<Layer> layers;
  std::size_t outside = 0;  // bytes of weights that make_resident left in host memory beside a device

  std::int64_t parameters() const;
  std::size_t weight_bytes() const;  // wherever they lie
  std::vector<nn::Linear*> linears();  // that an adapter may change, in order: attention's and the MLP's of each layer
  std::vector<const nn::Linear*> linears() const;
  std::vector<ExpertGroup> expert_groups();  // that an adapter may change, in order
  // context: tokens that the run is made for.
  const Rotation& rotation(std::int64_t layer, std::int64_t context) const;
};

struct LoadOptions {
  std::string base;  // "", or a format that 16-bit linear weights are quantized to while they load: "nf4", "q4_0", "q8_0"
};

// path: a GGUF file or a Hugging Face folder. Throws Error(bad_file) for what is malformed or unknown, naming the tensor.
Model load_model(const std::string& path, const LoadOptions& options = {});

// Uploads the weights once to where the backend's kernels work, so that plans read them in place; nothing to do on the CPU. What lies
// there cannot be exported: keep the loaded model for that, or load it again.
void make_resident(Model& model, Backend& backend);

// Where the weights lie while a model is trained beside a device of its own memory. What is frozen may stay in host memory: the table of
// embeddings, of which a step reads single rows through the link, and layers, which plans copy in when they are needed. Where there is
// more memory than a step needs, the quantized matrices of some layers lie there as the bf16 that products would make of them each time.
struct Residence {
  bool table_outside = false;  // only of a model whose head is another matrix
  std::int64_t streamed = 0;   // layers, spread evenly
  std::int64_t dense = 0;      // layers, spread evenly; 0 where any are streamed
  bool outside(std::int64_t layer, std::int64_t layers) const { return chosen(streamed, layer, layers); }
  bool decoded(std::int64_t layer, std::int64_t layers) const { return chosen(dense, layer, layers); }

 private:
  static bool chosen(std::int64_t n, std::int64_t layer, std::int64_t layers) {
    return (layer + 1) * n / layers > layer * n / layers;
  }
};
// The model with its weights there. They are copied into page-locked memory once, since pages of a mapped file are slow to lock.
void make_resident(Model& model, Backend& backend, const Residence& residence);
// Bytes that a layer's matrices take more as bf16 than quantized: the most of any layer.
std::size_t bytes_to_decode_layer(const Model& model);
// The same places without memory: what a plan is made for before anything is moved.
Model planned_residence(const Model& model, Backend& backend, const Residence& residence);

// Throws Error(usage) where the model's rotation is not computed for positions 0 … tokens - 1: "dynamic" RoPE scaling turns
// every token in another way once a text is longer than max_position_embeddings.
void check_context(const Model& model, std::int64_t tokens);

// The frequencies of rotary embedding, scaled as the config says; magnitude: YaRN's and longrope's attention factor. beyond: those
// of a context longer than the original one, which longrope alone tells apart.
std::vector<float> rope_frequencies(const io::ModelConfig& config, float& magnitude, bool beyond = false);
// Of sliding layers with a theta of their own.
std::vector<float> local_rope_frequencies(const io::ModelConfig& config);
// All rotations of the model, as storages.
void set_rotations(Model& model);

// Names of adapted modules: "model.layers.3.mlp.up_proj" <-> "blk.3.ffn_up". Throw Error(bad_file) for what the model has not.
std::string gguf_name(const io::ModelConfig& config, const std::string& hf_module);
std::string hf_name(const io::ModelConfig& config, const std::string& gguf_module);

}  // namespace supersonic::models
