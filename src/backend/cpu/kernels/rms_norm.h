// RMS normalisation of rows, forward and backward: y = w * x * rstd, rstd = 1 / sqrt(mean(x^2) +
// eps). Arithmetic is fp32; x, y, dx, dy share one type and w has its own, f32 or bf16 each.
// Results do not depend on the number of threads. Bytes: forward reads x and writes y once,
// backward reads x and dy and writes dx once.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu {

struct RmsNormForward {
  const void* x = nullptr;  // (rows, d)
  const void* w = nullptr;  // (d)
  void* y = nullptr;        // (rows, d), or null; may be x
  float* rstd = nullptr;    // (rows), or null
  std::int64_t rows = 0, d = 0;
  float eps = 0;
  DType type = DType::f32, w_type = DType::f32;
};

struct RmsNormBackward {
  const void* dy = nullptr;     // (rows, d)
  const void* x = nullptr;      // (rows, d)
  const void* w = nullptr;      // (d)
  const float* rstd = nullptr;  // (rows); null: computed again from x and eps
  void* dx = nullptr;           // (rows, d), or null; may be dy or base
  float* dw = nullptr;          // (d), or null
  void* workspace = nullptr;    // rms_norm_backward_workspace bytes; unused when dw is null
  std::int64_t rows = 0, d = 0;
  float eps = 0;
  DType type = DType::f32, w_type = DType::f32;
  const void* base = nullptr;  // (rows, d), added to dx, or null
};

std::size_t rms_norm_backward_workspace(std::int64_t rows, std::int64_t d);

struct RmsNormKernels {
  void (*forward)(Pool&, const RmsNormForward&);
  void (*backward)(Pool&, const RmsNormBackward&);
};
const RmsNormKernels& rms_norm_kernels(Isa level = isa());

// The gradient of w is summed over blocks of rows, then over the blocks in order; the split depends
// on rows alone.
constexpr std::int64_t rms_norm_row_blocks(std::int64_t rows) {
  return rows < 16 ? 1 : rows / 16 < 32 ? rows / 16 : 32;
}

}  // namespace supersonic::cpu
