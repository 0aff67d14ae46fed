// Q5_1 (GGUF type 7): 32 weights in 24 bytes, w = q d + m with 16-bit scale d and minimum m, and
// 5-bit codes q.
//
// The low four bits lie as in Q4_0; bit i of the little-endian word qh is the fifth bit of weight
// i. The encoder spreads the codes evenly from the smallest weight to the largest; its bytes equal
// gguf-py's.
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

struct Q5_1 {
  static constexpr std::string_view name = "q5_1";
  static constexpr int ggml_type = 7;
  static constexpr int weights = 32;
  struct Block {
    f16 d, m;
    std::uint8_t qh[4];
    std::uint8_t qs[16];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d), m(b.m);
    std::uint8_t q[32]{};
    unpack_five_bits(b.qh, b.qs, q);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]) + m;
  }

  static constexpr void encode(const float* w, Block& b) {
    const auto [low, high] = extremes(w, weights);
    const float d = (high - low) / 31, inverse = inverse_or_zero(d);
    b.d = f16(d);
    b.m = f16(low);
    std::uint8_t q[32]{};
    for (int i = 0; i < 32; ++i) {
      q[i] = static_cast<std::uint8_t>(truncate_below((w[i] - low) * inverse + 0.5f, 31));
    }
    pack_five_bits(q, b.qh, b.qs);
  }
};
static_assert(sizeof(Q5_1::Block) == 24);

}  // namespace supersonic::formats
