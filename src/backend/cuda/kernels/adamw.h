// AdamW over flat arrays, with fp32 or block-wise 8-bit moments, and the sum of squares that clips
// its gradient. The numbers that change from step to step are read on the device, so that a
// captured step stays as it is. Limit: bandwidth, 28 bytes a parameter with fp32 moments (p, m, v
// read and written, g read), 16 with 8-bit ones; 4
// less where parameters are bf16, which are rounded stochastically (core/rounding.h).
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace supersonic::cuda {

struct AdamWRates {
  float beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  std::uint64_t seed = 0;  // of the rounding
};
// On the device: hyper = {lr, step (from 1), max_norm (0: no clipping), -}, and the gradient's sum
// of squares.
struct AdamWInputs {
  const float* gradient = nullptr;  // (n)
  const float* hyper = nullptr;     // (4)
  const float* squares = nullptr;   // (1)
};

// PyTorch's order: p *= 1 - lr·wd; m += (1-b1)(g-m); v = b2·v + (1-b2)g²; p -= lr/(1-b1^t) · m /
// (sqrt(v)/sqrt(1-b2^t) + eps).
struct AdamWState {
  void* p = nullptr;  // (n) f32 or bf16
  DType type = DType::f32;
  float *m = nullptr, *v = nullptr;  // (n)
};
void adamw(const AdamWState& s, const AdamWInputs& in, const AdamWRates& rates, std::int64_t n,
           cudaStream_t stream);

// Moments as codes of the dynamic 8-bit maps (signed for m, unsigned for v), an fp32 maximum per
// 256 values. The update uses the moments before they are rounded; decay follows the update, eps is
// scaled by sqrt(1-b2^t) (bitsandbytes). A gradient that is not finite is taken as 0; a negative
// moment never becomes 0 or positive by rounding.
constexpr int kAdamWBlock = 256;
struct AdamW8bitState {
  void* p = nullptr;  // (n) f32 or bf16
  DType type = DType::f32;
  std::uint8_t *m = nullptr, *v = nullptr;
  float *m_max = nullptr, *v_max = nullptr;  // (ceil(n / 256))
};
void adamw_8bit(const AdamW8bitState& s, const AdamWInputs& in, const AdamWRates& rates,
                std::int64_t n, cudaStream_t stream);

// out[0] = sum of x², in fp64 until the end; the order depends on n alone.
std::size_t sum_squares_workspace(std::int64_t n);
void sum_squares(const float* x, std::int64_t n, float* out, void* workspace, cudaStream_t stream);

}  // namespace supersonic::cuda
