#include "ops/pad.h"

#include "ops/map/arithmetic.h"

namespace supersonic {

Tensor pad(const Tensor& x, int axis, std::int64_t before, std::int64_t after, Where where) {
  if (axis < 0) axis += x.rank();
  return before == 0 && after == 0 ? x : record1(Pad{axis, before, after}, {x}, where);
}

Tensor concat(const Tensor& a, const Tensor& b, int axis, Where where) {
  if (axis < 0) axis += a.rank();
  return add(pad(a, axis, 0, b.dim(axis), where), pad(b, axis, a.dim(axis), 0, where), where);
}

}  // namespace supersonic
