// NF4 on the device: the table of 16 values and the scales of 64 weights, plain or nested
// (formats/nf4.h).
#pragma once
#include "backend/cuda/kernels/nf4_planes.h"
#include "formats/dynamic8.h"
#include "formats/nf4.h"

namespace supersonic::cuda {

static __device__ constexpr formats::Dynamic8 kNf4Map(true);

__device__ inline float nf4_value(int code) {
  static constexpr float table[16] = {
      formats::Nf4::table[0],  formats::Nf4::table[1],  formats::Nf4::table[2],
      formats::Nf4::table[3],  formats::Nf4::table[4],  formats::Nf4::table[5],
      formats::Nf4::table[6],  formats::Nf4::table[7],  formats::Nf4::table[8],
      formats::Nf4::table[9],  formats::Nf4::table[10], formats::Nf4::table[11],
      formats::Nf4::table[12], formats::Nf4::table[13], formats::Nf4::table[14],
      formats::Nf4::table[15]};
  return table[code];
}

template <bool nested>
__device__ float nf4_scale(const Nf4Planes& p, std::int64_t block) {
  if constexpr (nested)
    return __fadd_rn(__fmul_rn(kNf4Map.values[p.scale_codes[block]],
                               p.scales[block / formats::Nf4::scales_per_block]),
                     *p.offset);
  return p.scales[block];
}

}  // namespace supersonic::cuda
