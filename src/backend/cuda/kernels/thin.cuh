// What the thin products share: loads that are zero outside of the operand, how a long sum is cut,
// how a sum leaves.
#pragma once
#include "backend/cuda/kernels/cluster.cuh"
#include "backend/cuda/kernels/mma.cuh"
#include "backend/cuda/kernels/thin.h"

namespace supersonic::cuda {

// Eight bf16 in one load, past the L1 cache, or zeros.
__device__ inline uint4 load_once(const __nv_bfloat16* from, bool valid) {
  uint4 v;
  asm volatile(
      "{\n"
      ".reg .pred valid;\n"
      "setp.ne.b32 valid, %5, 0;\n"
      "mov.b32 %0, 0;\n"
      "mov.b32 %1, 0;\n"
      "mov.b32 %2, 0;\n"
      "mov.b32 %3, 0;\n"
      "@valid ld.global.nc.L1::no_allocate.L2::128B.v4.b32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(from), "r"(static_cast<int>(valid)));
  return v;
}
// The same from any address, of which the first `count` are valid.
__device__ inline uint4 load_pieces(const __nv_bfloat16* from, int count) {
  std::uint32_t words[4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e)
    if (e < count)
      words[e / 2] |= static_cast<std::uint32_t>(__bfloat16_as_ushort(from[e])) << (e % 2 * 16);
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Neighbours a and b of one row of Y; b only where it is inside.
__device__ inline void store_thin(const ThinResult& r, std::int64_t at, float a, float b,
                                  bool both) {
  a *= r.alpha, b *= r.alpha;
  if (r.accumulate) {
    a += load_float(r.y, r.type, at);
    if (both) b += load_float(r.y, r.type, at + 1);
  }
  if (both && r.type == DType::bf16 && (reinterpret_cast<std::uintptr_t>(r.y) + at * 2) % 4 == 0) {
    reinterpret_cast<std::uint32_t*>(r.y)[at / 2] = pack_bf16(a, b);
    return;
  }
  store_float(r.y, r.type, at, a);
  if (both) store_float(r.y, r.type, at + 1, b);
}

inline bool aligned_rows(const void* data, std::int64_t ld, std::int64_t cols) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && ld % 8 == 0 && cols % 8 == 0;
}

// Blocks of a cluster that share a sum: as many as fill the device with so many at once on a
// multiprocessor, none with less than one part of the sum.
inline int splits_for(std::int64_t blocks, std::int64_t parts, int at_once) {
  int splits = 1;
  while (splits < 8 && 2 * splits <= parts &&
         2 * splits * blocks <= at_once * device_limits().multiprocessors)
    splits *= 2;
  return splits;
}

}  // namespace supersonic::cuda
