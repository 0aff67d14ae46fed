// Numbers to the codes of a KV cache, as kv_step.cu and cache_rows.cu write them: the bytes that
// the formats' own encode() gives, bit for bit. A warp makes a block of Q8_0, a lane a code.
// Products and sums are kept apart (__fmul_rn), since the definition rounds between them.
//
// A cache keeps what arithmetic brings: FP8 saturates; a block of Q8_0 with a number that no scale
// holds gets NaN for a scale, so that it reads as NaN and is noticed.
#pragma once
#include "backend/cuda/kernels/cache_codes.h"
#include "backend/cuda/kernels/device.cuh"

namespace supersonic::cuda {

// Lane i has number i of the block; all lanes of the warp are here.
__device__ inline void encode_by_warp(float x, formats::Q8_0::Block* to) {
  constexpr unsigned kAll = 0xffffffffu;
  const int lane = threadIdx.x % 32;
  const bool lost = __any_sync(kAll, !(fabsf(x) <= formats::kLargestWeight));
  const float largest = warp_max(fabsf(x)), first = __shfl_sync(kAll, x, 0);
  // Of zeros alone the first one's sign goes to the scale.
  const float d = (largest > 0 ? largest : first) / 127;
  const int code = formats::round_half_away(__fmul_rn(x, formats::inverse_or_zero(d)));
  to->qs[lane] = static_cast<std::int8_t>(lost ? 0 : code);
  if (lane == 0) to->d.bits = lost ? std::uint16_t{0x7e00} : f16(d).bits;
}

// Number i of a plane, by thread; for Q8_0 the threads of a warp have the numbers of one block.
__device__ inline void encode_number(CacheCodes codes, void* plane, std::int64_t i, float x) {
  if (codes == CacheCodes::fp8)
    static_cast<std::uint8_t*>(plane)[i] = formats::Fp8::code(x);
  else
    encode_by_warp(x, static_cast<formats::Q8_0::Block*>(plane) + i / formats::Q8_0::weights);
}

}  // namespace supersonic::cuda
