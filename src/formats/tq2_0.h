// TQ2_0 (GGUF type 35): 256 weights in 66 bytes, w = d (q - 1) with 2-bit codes q, of which ternary
// models use 0, 1, 2.
//
// Each half of 128 weights has 32 bytes; weight i of the half is in byte i % 32, bits 2 (i / 32)
// and up.
//
// The encoder is for weights that are -d, 0 and d already: d is the largest magnitude, of others
// the nearest of the three is taken. Its bytes equal gguf-py's.
#pragma once
#include "formats/pieces.h"

namespace supersonic::formats {

struct TQ2_0 {
  static constexpr std::string_view name = "tq2_0";
  static constexpr int ggml_type = 35;
  static constexpr int weights = 256;
  static constexpr std::string_view fallback = "q4_0";
  struct Block {
    std::uint8_t qs[64];
    f16 d;
  };

  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float d(b.d);
    const std::uint8_t* bytes = b.qs + piece / 16 * 32 + piece % 4 * 8;
    for (int i = 0; i < 8; ++i)
      out[i] = d * static_cast<float>((bytes[i] >> (piece % 16 / 4 * 2) & 3) - 1);
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<TQ2_0>(b, out); }

  static constexpr void encode(const float* x, Block& b) {
    const float d = magnitude(farthest(x, weights)), inverse = inverse_or_zero(d);
    b.d = f16(d);
    for (int i = 0; i < 64; ++i) {
      int byte = 0;
      for (int n = 0; n < 4; ++n)
        byte |= (round_half_away(x[i / 32 * 128 + n * 32 + i % 32] * inverse) + 1) << (2 * n);
      b.qs[i] = static_cast<std::uint8_t>(byte);
    }
  }
};
static_assert(sizeof(TQ2_0::Block) == 66);

}  // namespace supersonic::formats
