// New tokens on their way into attention: queries and keys turn, keys and values go to their
// caches.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/cache_codes.h"
#include "backend/cuda/kernels/fault.h"
#include "core/dtype.h"

namespace supersonic::cuda {

constexpr std::int64_t kMostCodedHead = 512;  // the widest head that is encoded

struct KvStepCall {
  void *k_cache, *v_cache;        // (capacity, groups, d)
  const void *q, *k, *v;          // (tokens, heads, d), (tokens, groups, d) twice
  void* y;                        // q turned; null: nobody reads it
  const std::int32_t* positions;  // (tokens)
  const float* inv_freq;          // (pairs)
  const std::int32_t* at;         // (1)
  std::int64_t capacity;
  int tokens, heads, groups, d, pairs;  // the first 2 * pairs of d turn
  float factor;
  bool interleaved;
  DType type, k_type, v_type;   // of q, k, v and y; of the caches
  CacheCodes k_codes, v_codes;  // of the caches, instead of their types
};
void kv_step(const KvStepCall& a, FaultSink faults, cudaStream_t stream);

}  // namespace supersonic::cuda
