// Q4_1 (GGUF type 3): 32 weights in 20 bytes, w = q d + m with 16-bit scale d and minimum m, and
// 4-bit codes q.
//
// Byte j holds weight j in its low nibble and weight j + 16 in its high one. The encoder spreads
// the codes evenly from the smallest weight to the largest; its bytes equal gguf-py's and
// llama.cpp's reference.
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

struct Q4_1 {
  static constexpr std::string_view name = "q4_1";
  static constexpr int ggml_type = 3;
  static constexpr int weights = 32;
  struct Block {
    f16 d, m;
    std::uint8_t qs[16];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d), m(b.m);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>(b.qs[j] & 15) + m;
      out[j + 16] = d * static_cast<float>(b.qs[j] >> 4) + m;
    }
  }

  static constexpr void encode(const float* w, Block& b) {
    const auto [low, high] = extremes(w, weights);
    const float d = (high - low) / 15, inverse = inverse_or_zero(d);
    b.d = f16(d);
    b.m = f16(low);
    for (int j = 0; j < 16; ++j) {
      const int first = truncate_below((w[j] - low) * inverse + 0.5f, 15);
      const int second = truncate_below((w[j + 16] - low) * inverse + 0.5f, 15);
      b.qs[j] = static_cast<std::uint8_t>(first | second << 4);
    }
  }
};
static_assert(sizeof(Q4_1::Block) == 20);

}  // namespace supersonic::formats
