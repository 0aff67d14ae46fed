// Q8_0 (GGUF type 8): 32 weights in 34 bytes, w = q d with one 16-bit scale d and signed 8-bit
// codes q.
//
// The encoder uses -127 ... 127 and rounds halves away from zero; its bytes equal gguf-py's and
// llama.cpp's reference.
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

struct Q8_0 {
  static constexpr std::string_view name = "q8_0";
  static constexpr int ggml_type = 8;
  static constexpr int weights = 32;
  struct Block {
    f16 d;
    std::int8_t qs[32];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(b.qs[i]);
  }

  static constexpr void encode(const float* w, Block& b) {
    const float d = magnitude(farthest(w, weights)) / 127, inverse = inverse_or_zero(d);
    b.d = f16(d);
    for (int i = 0; i < 32; ++i) {
      b.qs[i] = static_cast<std::int8_t>(round_half_away(w[i] * inverse));
    }
  }
};
static_assert(sizeof(Q8_0::Block) == 34);

}  // namespace supersonic::formats
