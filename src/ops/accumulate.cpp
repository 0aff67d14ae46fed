#include "ops/accumulate.h"

namespace supersonic {

void accumulate(const Tensor& target, const Tensor& x, Where where) { record(Accumulate{}, {target, x}, where); }
void assign(const Tensor& target, const Tensor& x, Where where) { record(Assign{}, {target, x}, where); }

void clear(const Tensor& target, Where where) { record(Clear{}, {target}, where); }

Tensors Clear::define(const Clear&, Args in) {
  assign(in[0], fill(in[0].shape(), in[0].dtype(), 0.0));
  return {};
}

}  // namespace supersonic
