// Plain work on arrays: casts, fill, strided copy, transposition, row sums and maxima, vector math.
// Results do not depend on the number of threads. All of it is bound by bandwidth.
#pragma once
#include <cstdint>

#include "backend/cpu/kernels/softmax_xent.h"
#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu {

// A 2-D copy: rows of `cols` elements, strides in elements.
struct Copy2D {
  const void* from = nullptr;  // (rows, cols)
  void* to = nullptr;  // (rows, cols), or (cols, rows) when transposed; must not overlap `from`
  std::int64_t rows = 0, cols = 0, from_stride = 0, to_stride = 0;
  std::size_t element = 4;  // bytes: 1, 2, 4 or 8
};

enum class MathFn : std::uint8_t {
  exp,
  exp2,
  log,
  log1p,
  sin,
  cos,
  tanh,
  sigmoid,
  erf,
  sqrt,
  rsqrt
};

struct ArrayKernels {
  // Each of f32, bf16 and f16 to each; rounds to nearest even.
  void (*cast)(Pool&, const void* from, DType from_type, void* to, DType to_type, std::int64_t n);
  void (*fill)(Pool&, void* to, DType type, float value, std::int64_t n);  // f32, bf16 or f16
  void (*copy)(Pool&, const Copy2D&);
  void (*transpose)(Pool&, const Copy2D&);
  void (*row_sum)(Pool&, const RowReduction&, float* out);               // out (rows)
  void (*row_max)(Pool&, const RowReduction&, float* out);               // -inf for an empty row
  void (*map)(Pool&, MathFn, const float* x, float* y, std::int64_t n);  // y may be x
};
const ArrayKernels& array_kernels(Isa level = isa());

}  // namespace supersonic::cpu
