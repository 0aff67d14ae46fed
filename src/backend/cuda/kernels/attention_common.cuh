// What the attention kernels share: which keys a block of queries sees, and tiles of rows in shared
// memory.
#pragma once
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/device.cuh"

namespace supersonic::cuda {

constexpr int kNoKey = 0x7fffffff;

struct KeyRange {
  int lo, hi;  // lo > hi: none
};
__device__ inline KeyRange row_range(const AttentionShape& s, int row) {
  if (row >= s.queries) return {kNoKey, -1};
  const KeyRange r{s.lo[row], s.hi[row]};
  return r.hi < r.lo ? KeyRange{kNoKey, -1} : r;
}
// The smallest range that holds those of rows first .. first + rows - 1; every warp computes it for
// itself.
template <int rows>
__device__ KeyRange block_range(const AttentionShape& s, int first) {
  KeyRange all{kNoKey, -1};
  for (int i = static_cast<int>(threadIdx.x) % 32; i < rows; i += 32) {
    const KeyRange r = row_range(s, first + i);
    all.lo = min(all.lo, r.lo), all.hi = max(all.hi, r.hi);
  }
  for (int step = 16; step > 0; step /= 2) {
    all.lo = min(all.lo, __shfl_xor_sync(0xffffffffu, all.lo, step));
    all.hi = max(all.hi, __shfl_xor_sync(0xffffffffu, all.hi, step));
  }
  return all;
}

// Rows first .. first + rows - 1 of one head as floats, d + 4 apart; zeros past `end`.
template <int rows, int threads>
__device__ void load_rows(float* tile, const void* data, DType type, std::int64_t stride,
                          std::int64_t head_offset, int d, int first, int end) {
  const int pitch = d + 4;
  for (int i = static_cast<int>(threadIdx.x); i < rows * d; i += threads) {
    const int r = i / d, c = i - r * d;
    tile[r * pitch + c] =
        first + r < end ? load_float(data, type, (first + r) * stride + head_offset + c) : 0.0f;
  }
}

__device__ inline float dot_rows(const float* a, const float* b, int d) {
  float sum = 0;
  for (int c = 0; c < d; c += 4) {
    const float4 x = *reinterpret_cast<const float4*>(a + c),
                 y = *reinterpret_cast<const float4*>(b + c);
    sum += x.x * y.x, sum += x.y * y.y, sum += x.z * y.z, sum += x.w * y.w;
  }
  return sum;
}
__device__ inline void add_scaled(float4& sum, float p, const float* row) {
  const float4 v = *reinterpret_cast<const float4*>(row);
  sum.x += p * v.x, sum.y += p * v.y, sum.z += p * v.z, sum.w += p * v.w;
}
__device__ inline float sum_of_four(float x) {  // over lanes 4i .. 4i + 3
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float max_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline void store_four(void* out, DType type, std::int64_t at, const float4& v,
                                  float factor) {
  store_float(out, type, at, v.x * factor);
  store_float(out, type, at + 1, v.y * factor);
  store_float(out, type, at + 2, v.z * factor);
  store_float(out, type, at + 3, v.w * factor);
}

}  // namespace supersonic::cuda
