// A decoded token's attention: its query and key turn, its key and value go to their caches, and
// the query attends them, in one launch.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/fault.h"
#include "core/dtype.h"

namespace supersonic::cuda {

constexpr int kMostAttendKeys = 4096;  // beyond, more blocks are wanted than share a cluster

struct AttendStepCall {
  void *k_cache, *v_cache;                      // (capacity, groups, d) of cache_type
  const void *q, *k, *v;                        // (heads, d), (groups, d) twice, of type
  void* o;                                      // (heads, d) of type
  const float* inv_freq;                        // (pairs)
  const std::int32_t *position, *at, *lo, *hi;  // (1) each
  std::int64_t capacity;
  int context;                  // rows of the caches that may be attended
  int heads, groups, d, pairs;  // d: a multiple of 8, at most 128; the first 2 * pairs of it turn
  float factor, scale;          // of the sines, of the scores
  bool interleaved;
  DType type, cache_type;  // f32 or bf16; bf16 or f16
};
void attend_step(const AttendStepCall& a, FaultSink faults, cudaStream_t stream);

}  // namespace supersonic::cuda
