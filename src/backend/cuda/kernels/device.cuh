// What device code shares: loads and stores of float types, bf16 pairs, warp reductions.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/device.h"
#include "core/dtype.h"

namespace supersonic::cuda {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(__half x) { return __half2float(x); }
template <class T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

__device__ inline float load_float(const void* p, DType type, std::int64_t i) {
  if (type == DType::f32) return static_cast<const float*>(p)[i];
  if (type == DType::bf16) return to_float(static_cast<const __nv_bfloat16*>(p)[i]);
  return to_float(static_cast<const __half*>(p)[i]);
}
__device__ inline void store_float(void* p, DType type, std::int64_t i, float x) {
  if (type == DType::f32) {
    static_cast<float*>(p)[i] = x;
  } else if (type == DType::bf16) {
    static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(x);
  } else {
    static_cast<__half*>(p)[i] = __float2half_rn(x);
  }
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline float low_bf16(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

__device__ inline void unpack8(const uint4& v, float* out) {
  const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) out[2 * i] = low_bf16(words[i]), out[2 * i + 1] = high_bf16(words[i]);
}

// Elements at .. at + 7 of a dense array; zeros past `count`. fast: the address is a multiple
// of 16.
__device__ inline void dense8(const void* data, DType type, bool fast, std::int64_t at, int count,
                              float* out) {
  if (fast && count == 8 && type == DType::bf16) {
    unpack8(*reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(data) + at), out);
  } else if (fast && count == 8 && type == DType::f32) {
    const auto* p = reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
    const float4 a = p[0], b = p[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = i < count ? load_float(data, type, at + i) : 0.0f;
  }
}

__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

}  // namespace supersonic::cuda
