// A linear layer: a weight in any format, an optional bias, an optional LoRA adapter (Hu et al. 2021). The adapter's matrices
// live in two flat storages of a LoraSet, values and gradients, so that an optimizer step is one operation over one array.
#pragma once
#include <string>
#include <vector>

#include "core/op.h"

namespace supersonic {
struct Backend;
}

namespace supersonic::nn {

// One adapted layer's matrices inside the flat storages: A (rank, in) at `a`, B (out, rank) at `b`, in elements. Of a mixture, each
// expert has both: A (experts, rank, in), B (parts, experts, out, rank), where the parts are the layers that read the same x and
// share A, in this order: gate and up.
struct LoraSlot {
  std::int64_t a = 0, b = 0, rank = 0, in = 0, out = 0;
  float scale = 1;  // alpha / rank
  std::int64_t experts = 0, parts = 1;  // 0: a linear layer
  std::int64_t matrices() const { return experts ? experts : 1; }
  std::int64_t a_size() const { return matrices() * rank * in; }
  std::int64_t part_size() const { return matrices() * out * rank; }
};

struct Linear {
  std::string name;  // as Hugging Face names the module: "model.layers.0.self_attn.q_proj"
  StorageRef weight;  // (out, in)
  StorageRef bias;    // (out) f32, or empty
  int lora = -1;      // slot in the LoraSet, or -1
  bool sensitive = false;  // stays out of int8, but for the few rows of a decoded token
};

struct LoraSet {
  StorageRef values, gradients;  // (n) f32; gradients empty at inference
  std::vector<LoraSlot> slots;
  std::vector<std::string> names;  // of the layers
  std::int64_t size = 0;
  // Adds a slot; storages are made by allocate() once all are known.
  int add(const std::string& name, std::int64_t rank, std::int64_t in, std::int64_t out, float scale,
          std::int64_t experts = 0, std::int64_t parts = 1);
  void allocate(bool train);
  // The same set with its storages where the backend's kernels read and write them; on the CPU the set itself.
  LoraSet resident(Backend& backend) const;
};

// What recording a forward pass needs and collects.
struct Recorder {
  DType activation = DType::f32;
  const LoraSet* lora = nullptr;
  bool train = false;
  std::vector<Tensor> trainable;          // views of lora->values in the order of use
  std::vector<std::int64_t> offsets;      // their element offsets
  // The adapter matrix at an offset, as a tensor; remembered as trainable when training.
  Tensor matrix(std::int64_t offset, std::int64_t rows, std::int64_t cols);
};

// x (tokens, in) -> (tokens, out): x W^T [+ bias] [+ scale (x A^T) B^T]
Tensor linear(Recorder& r, const Linear& layer, const Tensor& x);

}  // namespace supersonic::nn
