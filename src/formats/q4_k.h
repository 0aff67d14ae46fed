// Q4_K (GGUF type 12): 256 weights in 144 bytes, w = d s q - dmin m with 4-bit codes q and, for
// each 32 weights, a 6-bit scale s and a 6-bit minimum m.
//
// Each 64 weights have 32 bytes of codes: the first 32 weights in the low nibbles, the others in
// the high ones. The encoder: affine_search.h.
#pragma once
#include "formats/affine_search.h"

namespace supersonic::formats {

struct Q4_K {
  static constexpr std::string_view name = "q4_k";
  static constexpr std::string_view fallback = "q5_0";
  static constexpr int ggml_type = 12;
  static constexpr int weights = 256;
  struct Block {
    f16 d, dmin;
    std::uint8_t scales[12];
    std::uint8_t qs[128];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d), dmin(b.dmin);
    for (int k = 0; k < 8; ++k) {
      const auto [s, m] = unpack_scale_min(b.scales, k);
      const float scale = d * static_cast<float>(s), min = dmin * static_cast<float>(m);
      for (int j = 0; j < 32; ++j) {
        const int q = b.qs[k / 2 * 32 + j] >> (k % 2 * 4) & 15;
        out[32 * k + j] = scale * static_cast<float>(q) - min;
      }
    }
  }

  static void encode(const float* x, Block& b) {
    const auto t = AffineSearch<8, 15, 63>::run(x);
    b.d = f16(t.d);
    b.dmin = f16(t.dmin);
    pack_scale_min(t.s, t.m, b.scales);
    for (int i = 0; i < 128; ++i) {
      const float* q = t.q + i / 32 * 64 + i % 32;
      b.qs[i] = static_cast<std::uint8_t>(static_cast<int>(q[0]) | static_cast<int>(q[32]) << 4);
    }
  }
};
static_assert(sizeof(Q4_K::Block) == 144);

}  // namespace supersonic::formats
