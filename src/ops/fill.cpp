#include "ops/fill.h"

namespace supersonic {

Tensor fill(const Shape& shape, DType dtype, double value, Where where) {
  Fill a{value, static_cast<std::int32_t>(dtype), {}};
  for (int i = 0; i < kMaxRank; ++i) a.dims[i] = i < shape.rank ? static_cast<std::int32_t>(shape[i]) : -1;
  return record1(a, {}, where);
}

Tensor iota(std::int64_t n, DType dtype, Where where) {
  return record1(Iota{n, static_cast<std::int64_t>(dtype)}, {}, where);
}

}  // namespace supersonic
