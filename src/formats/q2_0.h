// Q2_0 (GGUF type 42): 64 weights in 18 bytes, w = d (q - 1) with 2-bit codes q. Weight i is in
// byte i / 4, bits 2 (i % 4) and up.
#pragma once
#include "formats/pieces.h"

namespace supersonic::formats {

struct Q2_0 {
  static constexpr std::string_view name = "q2_0";
  static constexpr int ggml_type = 42;
  static constexpr int weights = 64;
  struct Block {
    f16 d;
    std::uint8_t qs[16];
  };

  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float d(b.d);
    for (int i = 0; i < 8; ++i)
      out[i] = d * static_cast<float>((b.qs[2 * piece + i / 4] >> (i % 4 * 2) & 3) - 1);
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<Q2_0>(b, out); }
};
static_assert(sizeof(Q2_0::Block) == 18);

}  // namespace supersonic::formats
