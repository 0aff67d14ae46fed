// IQ4_XS (GGUF type 23): 256 weights in 136 bytes, w = d (s - 32) t[q] with IQ4_NL's levels t,
// 4-bit codes q and a 6-bit scale s for each 32 weights.
//
// Each 32 weights have 16 bytes of codes: the first 16 weights in the low nibbles. The scales' low
// nibbles are in scales_l, their two high bits in the word scales_h, both from the lowest bit up.
// The encoder: symmetric_search.h.
#pragma once
#include "formats/iq4_levels.h"
#include "formats/pieces.h"
#include "formats/symmetric_search.h"

namespace supersonic::formats {

struct IQ4_XS {
  static constexpr std::string_view name = "iq4_xs";
  static constexpr std::string_view fallback = "iq4_nl";
  static constexpr int ggml_type = 23;
  static constexpr int weights = 256;
  struct Block {
    f16 d;
    std::uint16_t scales_h;
    std::uint8_t scales_l[4];
    std::uint8_t qs[128];
  };

  static constexpr int scale(const Block& b, int group) {
    return (nibble(b.scales_l, group) | (b.scales_h >> (2 * group) & 3) << 4) - 32;
  }
  static constexpr void decode8(const Block& b, int piece, float* out) {
    const int group = piece / 4, p = piece % 4;
    const float d = static_cast<float>(b.d) * static_cast<float>(scale(b, group));
    const std::uint8_t* bytes = b.qs + 16 * group + p % 2 * 8;
    for (int i = 0; i < 8; ++i)
      out[i] = d * static_cast<float>(iq4_level(split_nibble(bytes, i, p >= 2)));
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<IQ4_XS>(b, out); }

  static void encode(const float* x, Block& b) {
    const auto t = SymmetricSearch<Iq4Levels, 8, -32, 31>::run(x);
    b = {};
    b.d = f16(t.d);
    for (int k = 0; k < 8; ++k) {
      const int s = static_cast<int>(t.s[k]) + 32;
      b.scales_l[k / 2] = static_cast<std::uint8_t>(b.scales_l[k / 2] | (s & 15) << (k % 2 * 4));
      b.scales_h = static_cast<std::uint16_t>(b.scales_h | (s >> 4) << (2 * k));
    }
    for (int i = 0; i < 256; ++i) {
      std::uint8_t& byte = b.qs[i / 32 * 16 + i % 16];
      byte = static_cast<std::uint8_t>(byte | Iq4Levels::code(t.q[i]) << (i % 32 / 16 * 4));
    }
  }
};
static_assert(sizeof(IQ4_XS::Block) == 136);

}  // namespace supersonic::formats
