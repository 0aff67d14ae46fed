#include "ops/dequantize.h"

#include "ops/map/arithmetic.h"

namespace supersonic {

Tensor dequantize(const Tensor& w, DType dtype, Where where) {
  if (!w.spec().format) return cast(w, dtype, where);
  return record1(Dequantize{static_cast<std::int64_t>(dtype)}, {w}, where);
}

}  // namespace supersonic
