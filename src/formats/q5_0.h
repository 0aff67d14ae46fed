// Q5_0 (GGUF type 6): 32 weights in 22 bytes, w = (q - 16) d with one 16-bit scale d and 5-bit
// codes q.
//
// The low four bits lie as in Q4_0; bit i of the little-endian word qh is the fifth bit of weight
// i. The encoder maps the weight of largest magnitude to -16; its bytes equal gguf-py's and
// llama.cpp's reference.
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

struct Q5_0 {
  static constexpr std::string_view name = "q5_0";
  static constexpr int ggml_type = 6;
  static constexpr int weights = 32;
  struct Block {
    f16 d;
    std::uint8_t qh[4];
    std::uint8_t qs[16];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d);
    std::uint8_t q[32]{};
    unpack_five_bits(b.qh, b.qs, q);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - 16);
  }

  static constexpr void encode(const float* w, Block& b) {
    const float d = farthest(w, weights) / -16, inverse = inverse_or_zero(d);
    b.d = f16(d);
    std::uint8_t q[32]{};
    for (int i = 0; i < 32; ++i) {
      q[i] = static_cast<std::uint8_t>(truncate_below(w[i] * inverse + 16.5f, 31));
    }
    pack_five_bits(q, b.qh, b.qs);
  }
};
static_assert(sizeof(Q5_0::Block) == 22);

}  // namespace supersonic::formats
