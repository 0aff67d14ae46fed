// Q2_K (GGUF type 10): 256 weights in 84 bytes, w = d s q - dmin m with 2-bit codes q and, for each
// 16 weights, a 4-bit scale s (low nibble) and a 4-bit minimum m (high nibble).
//
// Each half of 128 weights has 32 bytes of codes; weight i of the half is in byte i % 32, bits 2 (i
// / 32) and up. The encoder: affine_search.h.
#pragma once
#include "formats/affine_search.h"

namespace supersonic::formats {

struct Q2_K {
  static constexpr std::string_view name = "q2_k";
  static constexpr std::string_view fallback = "q4_0";
  static constexpr int ggml_type = 10;
  static constexpr int weights = 256;
  struct Block {
    std::uint8_t scales[16];
    std::uint8_t qs[64];
    f16 d, dmin;
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d), dmin(b.dmin);
    for (int i = 0; i < 256; ++i) {
      const int scales = b.scales[i / 16];
      const int q = b.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
      out[i] = d * static_cast<float>(scales & 15) * static_cast<float>(q) -
               dmin * static_cast<float>(scales >> 4);
    }
  }

  static void encode(const float* x, Block& b) {
    const auto t = AffineSearch<16, 3, 15>::run(x);
    b.d = f16(t.d);
    b.dmin = f16(t.dmin);
    for (int k = 0; k < 16; ++k)
      b.scales[k] =
          static_cast<std::uint8_t>(static_cast<int>(t.s[k]) | static_cast<int>(t.m[k]) << 4);
    for (auto& byte : b.qs) byte = 0;
    for (int i = 0; i < 256; ++i) {
      std::uint8_t& byte = b.qs[i / 128 * 32 + i % 32];
      byte = static_cast<std::uint8_t>(byte | static_cast<int>(t.q[i]) << (i % 128 / 32 * 2));
    }
  }
};
static_assert(sizeof(Q2_K::Block) == 84);

}  // namespace supersonic::formats
