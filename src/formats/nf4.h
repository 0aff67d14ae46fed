// NF4 (QLoRA, arXiv 2305.14314, section 3): 4-bit codes of a fixed table, 64 weights a scale, over
// the flattened matrix.
//
// The table holds quantiles of the normal distribution, scaled to [-1, 1], with an exact zero.
// Plane 0 holds the codes, the first of a pair in the high nibble; a block may cross the end of a
// row, and the last one may be short.
//   nf4        double quantization: plane 1 has the scales as 8-bit codes of the signed dynamic map
//   (dynamic8.h),
//              plane 2 one f32 for each 256 scales, plane 3 one f32 for the tensor: scale =
//              map[code] * plane2 + plane3
//   nf4_plain  plane 1 has the scales as f32
// The bytes equal those of bitsandbytes' CPU quantizer, which is why the encoder keeps its orders
// of rounding.
#pragma once
#include <algorithm>
#include <cstdint>

#include "formats/format.h"

namespace supersonic::formats {

struct Nf4 {
  static constexpr std::string_view name = "nf4", plain_name = "nf4_plain";
  static constexpr int weights = 64;            // per scale
  static constexpr int scales_per_block = 256;  // per nested scale
  static constexpr float table[16] = {-1.0f,
                                      -0.6961928009986877f,
                                      -0.5250730514526367f,
                                      -0.39491748809814453f,
                                      -0.28444138169288635f,
                                      -0.18477343022823334f,
                                      -0.09105003625154495f,
                                      0.0f,
                                      0.07958029955625534f,
                                      0.16093020141124725f,
                                      0.24611230194568634f,
                                      0.33791524171829224f,
                                      0.44070982933044434f,
                                      0.5626170039176941f,
                                      0.7229568362236023f,
                                      1.0f};

  // n weights, from codes that start at the high nibble of codes[0].
  static constexpr void decode(const std::uint8_t* codes, int n, float scale, float* out) {
    for (int i = 0; i < n; ++i) out[i] = table[codes[i / 2] >> (i % 2 ? 0 : 4) & 15] * scale;
  }

  // Codes of n values in [-1, 1]: the nearest table entries, of two equally near the smaller.
  static constexpr void nearest(const float* x, int n, std::uint8_t* codes) {
    for (int i = 0; i < n; ++i) codes[i] = 0;
    for (int c = 0; c < 15; ++c) {  // the outer loop, so that the inner one is vectorized
      const float middle = (table[c] + table[c + 1]) / 2;
      for (int i = 0; i < n; ++i) codes[i] = static_cast<std::uint8_t>(codes[i] + (x[i] > middle));
    }
  }
};

// The scales of blocks first ... first + count - 1, in f32. Compiled here once, without
// contraction, so that every kernel multiplies by the same numbers.
void nf4_scales(const Planes& planes, std::int64_t first, std::int64_t count, float* out);
void nf4_plain_scales(const Planes& planes, std::int64_t first, std::int64_t count, float* out);

extern const Format kNf4, kNf4Plain;

}  // namespace supersonic::formats
