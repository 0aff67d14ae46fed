#include "ops/reduce.h"

namespace supersonic {

Tensor sum(const Tensor& x, int axis, Where where) { return record1(Sum{axis < 0 ? axis + x.rank() : axis}, {x}, where); }
Tensor max(const Tensor& x, int axis, Where where) { return record1(Max{axis < 0 ? axis + x.rank() : axis}, {x}, where); }
Tensor mean(const Tensor& x, int axis, Where where) { return scale(sum(x, axis, where), 1.0 / static_cast<double>(x.dim(axis)), where); }

}  // namespace supersonic
