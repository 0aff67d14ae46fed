// AdamW over flat arrays, with fp32 or block-wise 8-bit moments, and the global gradient norm.
// Every result is the same for any number of threads. Bound by bandwidth: 28 bytes a parameter with
// fp32 moments (p, m, v read and written, g read), 16 with 8-bit ones;
// 4 less where parameters are bf16.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu {

struct AdamWHyper {
  float lr = 0, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0;
  std::int64_t step = 1;              // counts from 1: the bias corrections
  const float* grad_scale = nullptr;  // gradients are multiplied by this value (clipping); null: 1
  std::uint64_t seed = 0;             // of the rounding of parameters in bf16 (core/rounding.h)
};

// (n) values in fp32, or in bf16, which are rounded stochastically.
struct AdamWParameters {
  float* wide = nullptr;
  bf16* narrow = nullptr;
  AdamWParameters() = default;
  AdamWParameters(float* p) : wide(p) {}
  AdamWParameters(bf16* p) : narrow(p) {}
};

// PyTorch's order: p *= 1 - lr*wd; m += (1-b1)(g-m); v = b2*v + (1-b2)g^2;
// p -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps).
struct AdamW {
  AdamWParameters p;
  const float* g = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  std::int64_t n = 0;
};

// Moments as codes of the dynamic 8-bit maps (signed for m, unsigned for v), an fp32 maximum per
// 256 values. The update uses the moments before they are rounded; decay follows the update, eps is
// scaled by sqrt(1-b2^t) (bitsandbytes). A gradient that is not finite is taken as 0. Fresh states:
// codes of 0 (kDynamicZero*) with maxima 0.
constexpr std::int64_t kAdamWBlock = 256;
constexpr std::uint8_t kDynamicZeroSigned = 127, kDynamicZeroUnsigned = 0;
struct AdamW8bit {
  AdamWParameters p;
  const float* g = nullptr;
  std::uint8_t* m = nullptr;
  std::uint8_t* v = nullptr;
  float* m_max = nullptr;  // (ceil(n / 256))
  float* v_max = nullptr;
  std::int64_t n = 0;
};

// One array among those whose norm is taken together.
struct GradientSpan {
  const float* data = nullptr;
  std::int64_t n = 0;
};
struct GradientNorm {
  const GradientSpan* spans = nullptr;
  int count = 0;
  float max_norm = 0;         // <= 0: no clipping
  float* norm = nullptr;      // the global norm, or null
  float* scale = nullptr;     // min(1, max_norm / (norm + 1e-6)), as PyTorch clips; or null
  void* workspace = nullptr;  // gradient_norm_workspace bytes
};
std::size_t gradient_norm_workspace(const GradientSpan* spans, int count);

struct AdamWKernels {
  void (*step)(Pool&, const AdamW&, const AdamWHyper&);
  void (*step_8bit)(Pool&, const AdamW8bit&, const AdamWHyper&);
  void (*gradient_norm)(Pool&, const GradientNorm&);
};
const AdamWKernels& adamw_kernels(Isa level = isa());

// The dynamic maps' 256 values, ascending.
const float* dynamic_map_signed();
const float* dynamic_map_unsigned();

constexpr std::int64_t kNormChunk =
    16384;  // elements summed in one piece, whatever the number of threads
constexpr std::int64_t norm_chunks(std::int64_t n) { return (n + kNormChunk - 1) / kNormChunk; }

}  // namespace supersonic::cpu
