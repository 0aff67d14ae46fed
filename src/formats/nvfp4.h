// NVFP4 (GGUF type 40): 64 weights in 36 bytes, w = s q with an 8-bit float s (e4m3 without its
// sign) for each 16 weights and 4-bit floats q = +-{0, 1/2, 1, 3/2, 2, 3, 4, 6}.
//
// Each 16 weights have eight bytes: the first eight weights in the low nibbles. The tensor's own
// fp32 scale is not part of a block. The NaN code 127 counts as zero and the sign bit is ignored,
// as ggml reads it.
#pragma once
#include "formats/pieces.h"

namespace supersonic::formats {

struct NVFP4 {
  static constexpr std::string_view name = "nvfp4";
  static constexpr int ggml_type = 40;
  static constexpr int weights = 64;
  struct Block {
    std::uint8_t scales[4];
    std::uint8_t qs[32];
  };

  // Half of the scale: the table of codes is doubled.
  static constexpr float half_scale(std::uint8_t s) {
    if (s == 127) return 0;
    const int exponent = s >> 3 & 15, mantissa = s & 7;
    if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
    const auto bits = static_cast<std::uint32_t>(exponent - 8 + 127) << 23 |
                      static_cast<std::uint32_t>(mantissa) << 20;
    return std::bit_cast<float>(bits);
  }
  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float scale = half_scale(b.scales[piece / 2]);
    for (int i = 0; i < 8; ++i)
      out[i] = scale * static_cast<float>(
                           doubled_e2m1(split_nibble(b.qs + piece / 2 * 8, i, piece % 2 != 0)));
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<NVFP4>(b, out); }
};
static_assert(sizeof(NVFP4::Block) == 36);

}  // namespace supersonic::formats
