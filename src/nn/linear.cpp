#include "nn/linear.h"

#include "core/device.h"
#include "ops/gemm.h"
#include "ops/map/arithmetic.h"
#include "ops/view.h"

namespace supersonic::nn {

int LoraSet::add(const std::string& name, std::int64_t rank, std::int64_t in, std::int64_t out, float scale,
                 std::int64_t experts, std::int64_t parts) {
  constexpr std::int64_t kAlign = 16;  // matrices start on whole cache lines
  auto take = [&](std::int64_t n) {
    const std::int64_t at = size;
    size += (n + kAlign - 1) / kAlign * kAlign;
    return at;
  };
  LoraSlot slot{0, 0, rank, in, out, scale, experts, parts};
  slot.a = take(slot.a_size());
  slot.b = take(parts * slot.part_size());
  slots.push_back(slot);
  names.push_back(name);
  return static_cast<int>(slots.size()) - 1;
}

void LoraSet::allocate(bool train) {
  values = Storage::make({Shape{size}, DType::f32, nullptr}, "lora");
  if (train) gradients = Storage::make({Shape{size}, DType::f32, nullptr}, "lora gradients");
}

LoraSet LoraSet::resident(Backend& backend) const {
  LoraSet set = *this;
  if (values) set.values = supersonic::resident(values, backend);
  if (gradients) set.gradients = supersonic::resident(gradients, backend);
  return set;
}

Tensor Recorder::matrix(std::int64_t offset, std::int64_t rows, std::int64_t cols) {
  const Tensor m = reshape(slice(from_storage(lora->values), 0, offset, offset + rows * cols), {rows, cols});
  if (train) {
    trainable.push_back(m);
    offsets.push_back(offset);
  }
  return m;
}

Tensor linear(Recorder& r, const Linear& layer, const Tensor& x) {
  const bool adapted = layer.lora >= 0 && r.lora;
  const LoraSlot s = adapted ? r.lora->slots[layer.lora] : LoraSlot{};
  // The narrow product comes first, so that it is differentiated last: the gradient along x is complete before that of the matrix
  // A reads a recomputed x, and both recomputation and what is next done with the gradient are one chain.
  const Tensor down = adapted ? scale(supersonic::linear(x, r.matrix(s.a, s.rank, s.in)), s.scale) : Tensor();
  const GemmTermArgs term{x, from_storage(layer.weight), false, false, layer.sensitive};
  Tensor y = gemm(std::span(&term, 1), x.dtype());
  if (adapted) y = add(y, supersonic::linear(down, r.matrix(s.b, s.out, s.rank)));
  return layer.bias ? add(y, from_storage(layer.bias)) : y;
}

}  // namespace supersonic::nn
