// RMS normalisation of rows, forward and backward: y = w · x · rstd, rstd = 1 / sqrt(mean(x²) +
// eps); arithmetic in fp32. x, y, dx, dy share one type and w has its own, f32 or bf16 each. A warp
// or a block takes a row and keeps it in registers, so that it is read once, 16 bytes at a time.
// Limit: bandwidth (forward one read and one write of the row, backward two reads and one write).
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace supersonic::cuda {

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
  const void* base = nullptr;   // (rows, d), added to dx, or null
  const float* rstd = nullptr;  // (rows)
  void* dx = nullptr;           // (rows, d), or null; may be dy or base
  float* dw = nullptr;          // (d), or null
  float* workspace = nullptr;   // rms_norm_grad_workspace bytes; unused when dw is null
  std::int64_t rows = 0, d = 0;
  DType type = DType::f32, w_type = DType::f32;
};

std::size_t rms_norm_grad_workspace(std::int64_t rows, std::int64_t d);
void rms_norm_forward(const RmsNormForward& a, cudaStream_t stream);
void rms_norm_backward(const RmsNormBackward& a, cudaStream_t stream);

}  // namespace supersonic::cuda
