// Q3_K (GGUF type 11): 256 weights in 110 bytes, w = d (s - 32) (q - 4) with 3-bit codes q and a
// 6-bit scale s for each 16 weights.
//
// Each half of 128 weights has 32 bytes of low code bits; weight i of the half is in byte i % 32,
// bits 2 (i / 32) and up. The third bit of weight i is bit i / 32 of hmask[i % 32]. Scale k has its
// low nibble in byte k % 8 (the high half for k >= 8) and its upper two bits in byte 8 + k % 4,
// bits 2 (k / 4) and up. The encoder: symmetric_search.h.
#pragma once
#include "formats/symmetric_search.h"

namespace supersonic::formats {

struct Q3_K {
  static constexpr std::string_view name = "q3_k";
  static constexpr std::string_view fallback = "q4_0";
  static constexpr int ggml_type = 11;
  static constexpr int weights = 256;
  struct Block {
    std::uint8_t hmask[32];
    std::uint8_t qs[64];
    std::uint8_t scales[12];
    f16 d;
  };

  static constexpr int scale(const Block& b, int k) {
    const int low = b.scales[k % 8] >> (k / 8 * 4) & 15,
              high = b.scales[8 + k % 4] >> (k / 4 * 2) & 3;
    return (low | high << 4) - 32;
  }

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d);
    for (int i = 0; i < 256; ++i) {
      const int low = b.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
      const int high = b.hmask[i % 32] >> (i / 32) & 1;
      out[i] = d * static_cast<float>(scale(b, i / 16)) * static_cast<float>((low | high << 2) - 4);
    }
  }

  static void encode(const float* x, Block& b) {
    const auto t = SymmetricSearch<WholeLevels<-4, 3>, 16, -32, 31>::run(x);
    b = {};
    b.d = f16(t.d);
    for (int k = 0; k < 16; ++k) {
      const int s = static_cast<int>(t.s[k]) + 32;
      std::uint8_t &low = b.scales[k % 8], &high = b.scales[8 + k % 4];
      low = static_cast<std::uint8_t>(low | (s & 15) << (k / 8 * 4));
      high = static_cast<std::uint8_t>(high | (s >> 4) << (k / 4 * 2));
    }
    for (int i = 0; i < 256; ++i) {
      const int q = static_cast<int>(t.q[i]) + 4;
      std::uint8_t &low = b.qs[i / 128 * 32 + i % 32], &high = b.hmask[i % 32];
      low = static_cast<std::uint8_t>(low | (q & 3) << (i % 128 / 32 * 2));
      high = static_cast<std::uint8_t>(high | (q >> 2) << (i / 32));
    }
  }
};
static_assert(sizeof(Q3_K::Block) == 110);

}  // namespace supersonic::formats
