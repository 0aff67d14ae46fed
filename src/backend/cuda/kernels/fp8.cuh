// E4M3 codes and their scales in device code (fp8.h has the definition).
#pragma once
#include <cuda_fp8.h>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/fp8.h"

namespace supersonic::cuda {

// The scale of numbers of which the largest is `most`, and what they are multiplied by. 448 is
// 1.75 · 2^8: where the mantissa is larger, the next power is needed.
struct Fp8Scale {
  float value, inverse;
};
__device__ inline Fp8Scale fp8_scale(float most) {
  const int exponent = max(static_cast<int>((__float_as_uint(most) + 0x1fffffu) >> 23), 9) - 8;
  return {__int_as_float(exponent << 23), __int_as_float((254 - exponent) << 23)};
}

// Four neighbours; `a` has the lowest address.
__device__ inline std::uint32_t fp8_word(float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 890
  std::uint32_t word;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n"
      "}"
      : "=r"(word)
      : "f"(a), "f"(b), "f"(c), "f"(d));
  return word;
#else
  const auto pair = [](float low, float high) -> std::uint32_t {
    return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
  };
  return pair(a, b) | pair(c, d) << 16;
#endif
}

}  // namespace supersonic::cuda
