#include "nn/experts.h"

#include "ops/embedding.h"
#include "ops/map/arithmetic.h"

namespace supersonic::nn {

Tensor adapter_rows(Recorder& r, const Experts& layer, const Tensor& x, const Groups& g) {
  if (layer.lora < 0 || !r.lora) return {};
  const LoraSlot& s = r.lora->slots[static_cast<std::size_t>(layer.lora)];
  return scale(grouped_linear(x, r.matrix(s.a, s.experts * s.rank, s.in), g), s.scale);
}

Tensor expert_linear(Recorder& r, const Experts& layer, const Tensor& x, const Tensor& down,
                     const Groups& g, bool sensitive) {
  Tensor y = grouped_linear(x, from_storage(layer.weight), g, sensitive);
  if (down) {
    const LoraSlot& s = r.lora->slots[static_cast<std::size_t>(layer.lora)];
    const std::int64_t at = s.b + layer.part * s.part_size();
    y = add(y, grouped_linear(down, r.matrix(at, s.experts * s.out, s.rank), g));
  }
  return layer.bias ? add(y, embedding(from_storage(layer.bias), g.ids, y.dtype())) : y;
}

}  // namespace supersonic::nn
