// Q5_K (GGUF type 13): 256 weights in 176 bytes, w = d s q - dmin m with 5-bit codes q and, for
// each 32 weights, a 6-bit scale s and a 6-bit minimum m.
//
// Each 64 weights have 32 bytes of low nibbles: the first 32 weights in the low halves, the others
// in the high ones. The fifth bit of weight i is bit i / 32 of qh[i % 32]. The encoder:
// affine_search.h.
#pragma once
#include "formats/affine_search.h"

namespace supersonic::formats {

struct Q5_K {
  static constexpr std::string_view name = "q5_k";
  static constexpr std::string_view fallback = "q5_1";
  static constexpr int ggml_type = 13;
  static constexpr int weights = 256;
  struct Block {
    f16 d, dmin;
    std::uint8_t scales[12];
    std::uint8_t qh[32];
    std::uint8_t qs[128];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d), dmin(b.dmin);
    for (int k = 0; k < 8; ++k) {
      const auto [s, m] = unpack_scale_min(b.scales, k);
      const float scale = d * static_cast<float>(s), min = dmin * static_cast<float>(m);
      for (int j = 0; j < 32; ++j) {
        const int low = b.qs[k / 2 * 32 + j] >> (k % 2 * 4) & 15, high = b.qh[j] >> k & 1;
        out[32 * k + j] = scale * static_cast<float>(low | high << 4) - min;
      }
    }
  }

  static void encode(const float* x, Block& b) {
    const auto t = AffineSearch<8, 31, 63>::run(x);
    b.d = f16(t.d);
    b.dmin = f16(t.dmin);
    pack_scale_min(t.s, t.m, b.scales);
    for (auto& byte : b.qh) byte = 0;
    for (auto& byte : b.qs) byte = 0;
    for (int i = 0; i < 256; ++i) {
      const int q = static_cast<int>(t.q[i]), k = i / 32;
      std::uint8_t& low = b.qs[k / 2 * 32 + i % 32];
      low = static_cast<std::uint8_t>(low | (q & 15) << (k % 2 * 4));
      b.qh[i % 32] = static_cast<std::uint8_t>(b.qh[i % 32] | (q >> 4) << k);
    }
  }
};
static_assert(sizeof(Q5_K::Block) == 176);

}  // namespace supersonic::formats
