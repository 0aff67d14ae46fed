// Q1_0 (GGUF type 41): 128 weights in 18 bytes, w = d where the weight's bit is set, else -d.
// Weight i is bit i % 8 of byte i / 8.
#pragma once
#include "formats/pieces.h"

namespace supersonic::formats {

struct Q1_0 {
  static constexpr std::string_view name = "q1_0";
  static constexpr int ggml_type = 41;
  static constexpr int weights = 128;
  struct Block {
    f16 d;
    std::uint8_t qs[16];
  };

  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float d(b.d);
    for (int i = 0; i < 8; ++i) out[i] = b.qs[piece] >> i & 1 ? d : -d;
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<Q1_0>(b, out); }
};
static_assert(sizeof(Q1_0::Block) == 18);

}  // namespace supersonic::formats
