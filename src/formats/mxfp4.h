// MXFP4 (GGUF type 39; OCP microscaling 1.0): 32 weights in 17 bytes, w = 2^(e - 127) q with a
// shared 8-bit exponent e and 4-bit floats q = +-{0, 1/2, 1, 3/2, 2, 3, 4, 6}.
//
// Byte j holds weight j in its low nibble and weight j + 16 in its high one. The table is doubled
// and the scale halved: for e = 0 and 1 half the scale is subnormal, and still exact. An exponent
// of 255, NaN in the specification, decodes as the next power of two, as ggml reads it.
#pragma once
#include "formats/pieces.h"

namespace supersonic::formats {

struct MXFP4 {
  static constexpr std::string_view name = "mxfp4";
  static constexpr int ggml_type = 39;
  static constexpr int weights = 32;
  struct Block {
    std::uint8_t e;
    std::uint8_t qs[16];
  };

  static constexpr float half_scale(std::uint8_t e) {
    const std::uint32_t exponent = e;
    return std::bit_cast<float>(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
  }
  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float scale = half_scale(b.e);
    for (int i = 0; i < 8; ++i)
      out[i] = scale *
               static_cast<float>(doubled_e2m1(split_nibble(b.qs, piece % 2 * 8 + i, piece >= 2)));
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<MXFP4>(b, out); }
};
static_assert(sizeof(MXFP4::Block) == 17);

}  // namespace supersonic::formats
