// Q4_0 (GGUF type 2): 32 weights in 18 bytes, w = (q - 8) d with one 16-bit scale d and 4-bit codes
// q.
//
// Byte j holds weight j in its low nibble and weight j + 16 in its high one. The encoder maps the
// weight of largest magnitude to -8, the end of the range that has one step more; its bytes equal
// gguf-py's and llama.cpp's reference.
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

struct Q4_0 {
  static constexpr std::string_view name = "q4_0";
  static constexpr int ggml_type = 2;
  static constexpr int weights = 32;
  struct Block {
    f16 d;
    std::uint8_t qs[16];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>((b.qs[j] & 15) - 8);
      out[j + 16] = d * static_cast<float>((b.qs[j] >> 4) - 8);
    }
  }

  static constexpr void encode(const float* w, Block& b) {
    const float d = farthest(w, weights) / -8, inverse = inverse_or_zero(d);
    b.d = f16(d);
    for (int j = 0; j < 16; ++j) {
      const int low = truncate_below(w[j] * inverse + 8.5f, 15);
      const int high = truncate_below(w[j + 16] * inverse + 8.5f, 15);
      b.qs[j] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
};
static_assert(sizeof(Q4_0::Block) == 18);

}  // namespace supersonic::formats
