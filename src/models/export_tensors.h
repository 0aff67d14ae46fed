// What both exporters share: the model's tensors as a list, the type that each gets, and the
// encoder that turns one into the bytes of that type, in parallel over rows. Internal to
// src/models/export*.cpp.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/cpu/pool.h"
#include "io/architecture.h"
#include "io/qk_layout.h"
#include "models/export.h"
#include "models/tensor_type.h"

namespace supersonic::models {

std::optional<TensorType> find_type(
    std::string_view name);  // "f32", "q4_k", …; nothing when unknown or not writable
std::size_t row_bytes(const TensorType& type, std::int64_t cols);

// A tensor of the model: (rows, cols), or (rows) with cols 1.
struct ModelTensor {
  std::string module, gguf;  // names in both worlds
  const char* part = "weight";
  io::Role role = {};
  bool bare = false;  // a folder names it without the part
  const Storage* data = nullptr;
  std::int64_t rows = 0, cols = 1;
  const nn::LoraSlot* slot = nullptr;  // the adapter that changes it
  std::int64_t lora_part = 0;          // of that slot's parts
  const float* lora = nullptr;         // that slot's storage
  std::int64_t heads = 0;              // whose rows rotary embedding pairs; 0: rows have one order
  std::int64_t experts = 0;            // whose matrices lie one below the other; 0: one matrix
  std::int64_t first = 0;              // row of the data where this tensor begins
  bool unit_norm = false;              // a folder stores it minus 1
  bool matrix() const { return cols > 1 && part == std::string_view("weight"); }
  Shape shape() const {
    if (experts) return Shape{experts, rows / experts, cols};
    return cols > 1 ? Shape{rows, cols} : Shape{rows};
  }
  std::string hf_name() const { return bare ? module : module + "." + part; }
  TensorType type() const { return {data->spec.dtype, data->spec.format}; }
};
// In the order of a file: embedding, layers, final norm, output layer unless it is the embedding.
std::vector<ModelTensor> model_tensors(const Model& model, const nn::LoraSet* lora);

class TensorEncoder {
 public:
  using Sink = std::function<void(std::span<const std::byte>)>;
  // gguf: the container, which decides the order of q and k rows and where norms count from.
  TensorEncoder(const Model& model, bool gguf);
  // Hands the tensor's bytes to `sink`, in order, in pieces of some megabytes. Returns true where
  // they were copied unchanged.
  bool encode(const ModelTensor& tensor, const TensorType& type, const Sink& sink);

 private:
  void encode_rows(const ModelTensor& t, const TensorType& type, std::int64_t first,
                   std::int64_t count, std::byte* out);

  bool copies(const ModelTensor& t, const TensorType& type) const;

  bool gguf_;
  io::QkLayout model_layout_, layout_;
  std::int64_t head_dim_;
  std::vector<std::int64_t> order_;  // of the current tensor; empty: unchanged
  cpu::Pool pool_;
};

// One row of a tensor as floats, the adapter's part added; a row of floats as the type's bytes.
void decode_row(const ModelTensor& t, std::int64_t row, float* out);
void encode_row(const ModelTensor& t, const TensorType& type, std::int64_t row, const float* w,
                std::byte* out);

// Error(failure) where the file system of `path` has less room than that.
void check_room(const std::string& path, std::uint64_t bytes);

}  // namespace supersonic::models
