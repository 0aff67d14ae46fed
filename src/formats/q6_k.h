// Q6_K (GGUF type 14): 256 weights in 210 bytes, w = d s (q - 32) with 6-bit codes q and a signed
// 8-bit scale s for each 16 weights.
//
// Each half of 128 weights has 64 bytes of low nibbles and 32 bytes of high bits. Weight i of the
// half, l = i % 32: low nibble in ql[i % 64], the low half of the byte for i < 64; high bits in
// qh[l], bits 2 (i / 32) and up. The encoder: symmetric_search.h.
#pragma once
#include "formats/symmetric_search.h"

namespace supersonic::formats {

struct Q6_K {
  static constexpr std::string_view name = "q6_k";
  static constexpr std::string_view fallback = "q8_0";
  static constexpr int ggml_type = 14;
  static constexpr int weights = 256;
  struct Block {
    std::uint8_t ql[128];
    std::uint8_t qh[64];
    std::int8_t scales[16];
    f16 d;
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128, r = i % 128;
      const int low = b.ql[half * 64 + r % 64] >> (r / 64 * 4) & 15;
      const int high = b.qh[half * 32 + r % 32] >> (r / 32 * 2) & 3;
      out[i] =
          d * static_cast<float>(b.scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
    }
  }

  static void encode(const float* x, Block& b) {
    const auto t = SymmetricSearch<WholeLevels<-32, 31>, 16, -128, 127>::run(x);
    b = {};
    b.d = f16(t.d);
    for (int k = 0; k < 16; ++k) b.scales[k] = static_cast<std::int8_t>(t.s[k]);
    for (int i = 0; i < 256; ++i) {
      const int q = static_cast<int>(t.q[i]) + 32, half = i / 128, r = i % 128;
      std::uint8_t& low = b.ql[half * 64 + r % 64];
      std::uint8_t& high = b.qh[half * 32 + r % 32];
      low = static_cast<std::uint8_t>(low | (q & 15) << (r / 64 * 4));
      high = static_cast<std::uint8_t>(high | (q >> 4) << (r / 32 * 2));
    }
  }
};
static_assert(sizeof(Q6_K::Block) == 210);

}  // namespace supersonic::formats
