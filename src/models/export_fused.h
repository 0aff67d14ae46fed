// Experts as gpt-oss's folders keep them (fused_experts.h): all experts of a layer in one tensor,
// transposed, gate and up alternating; or, where the model's are MXFP4 and stay so, as blocks and
// scales. Internal to src/models/export*.cpp.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "io/json_tree.h"
#include "models/export_tensors.h"

namespace supersonic::models {

// A tensor of the file: what it is called, and how its bytes are made, in order.
struct FusedPart {
  std::string name;
  Shape shape;
  DType dtype;      // as safetensors names it
  TensorType type;  // of the weights in it
  bool copied = false;
  bool merged = false;  // an adapter changes it
  std::function<void(const TensorEncoder::Sink&)> write;
};

struct FusedTensor {
  std::string name;
  std::vector<ModelTensor> parts;  // one, or gate and up

  bool bias() const { return parts[0].experts == 0; }
  // Whether the model has these weights as MXFP4.
  bool packed() const;
  bool merged() const;
  // The tensors that stand for it: one of this type, or, as_blocks, its blocks and scales. This
  // object must outlive them.
  std::vector<FusedPart> stored(DType type, bool as_blocks) const;

 private:
  std::int64_t experts() const { return bias() ? parts[0].rows : parts[0].experts; }
  std::int64_t out() const { return bias() ? parts[0].cols : parts[0].rows / parts[0].experts; }
  std::int64_t in() const { return bias() ? 1 : parts[0].cols; }
  std::int64_t width() const { return out() * static_cast<std::int64_t>(parts.size()); }
  void write_dense(const TensorType& type, const TensorEncoder::Sink& sink) const;
  void write_blocks(const TensorEncoder::Sink& sink) const;
  void write_scales(const TensorEncoder::Sink& sink) const;
};

// Takes the experts' tensors out of the list.
std::vector<FusedTensor> take_fused_tensors(std::vector<ModelTensor>& tensors);

// What config.json says of a folder with blocks.
io::JsonTree packed_experts_config();

}  // namespace supersonic::models
