// Rotary position embedding: pairs of each head are turned by position · inv_freq[pair] and
// multiplied by an attention factor. The angle is reduced in fp64, as on the CPU, so that long
// contexts keep fp32 accuracy; sines and cosines of a token are computed once for all its heads,
// into shared memory. Limit: bandwidth, one read and one write.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace supersonic::cuda {

constexpr std::int64_t kMostRotary = 1024;

struct Rotation {
  const void* x = nullptr;                  // (tokens, heads, d)
  void* y = nullptr;                        // the same; may be x
  const std::int32_t* positions = nullptr;  // (tokens)
  const float* inv_freq = nullptr;          // (d / 2)
  std::int64_t tokens = 0, heads = 0, d = 0;
  float factor = 1;
  bool interleaved = false;  // pairs (2i, 2i + 1), else (i, i + d/2)
  bool inverse = false;
  DType type = DType::f32;  // f32 or bf16
};
void rotate(const Rotation& a, cudaStream_t stream);

}  // namespace supersonic::cuda
