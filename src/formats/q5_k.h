// Q5_K (GGUF type 13): 256 weights in 176 bytes, w = d s q - dmin m with 5-bit codes q and, for
// each 32 weights, a 6-bit scale s and a 6-bit minimum m.
//
// Each 64 weights have 32 bytes of low nibbles: the first 32 weights in the low halves, the others
// in the high ones. The fifth bit of weight i is bit i / 32 of qh[i % 32].
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

struct Q5_K {
  static constexpr std::string_view name = "q5_k";
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
};
static_assert(sizeof(Q5_K::Block) == 176);

}  // namespace supersonic::formats
