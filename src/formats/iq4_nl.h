// IQ4_NL (GGUF type 20): 32 weights in 18 bytes, w = d t[q] with 4-bit codes q and sixteen fixed
// levels t, denser around zero.
//
// Byte j holds weight j in its low nibble and weight j + 16 in its high one. The encoder fits d by
// weighted least squares (symmetric_search.h), then to the codes that its 16-bit value gives.
#pragma once
#include "formats/iq4_levels.h"
#include "formats/pieces.h"
#include "formats/symmetric_search.h"

namespace supersonic::formats {

struct IQ4_NL {
  static constexpr std::string_view name = "iq4_nl";
  static constexpr int ggml_type = 20;
  static constexpr int weights = 32;
  struct Block {
    f16 d;
    std::uint8_t qs[16];
  };

  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float d(b.d);
    for (int i = 0; i < 8; ++i)
      out[i] = d * static_cast<float>(iq4_level(split_nibble(b.qs, piece % 2 * 8 + i, piece >= 2)));
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<IQ4_NL>(b, out); }

  static void encode(const float* x, Block& b) {
    float w[32], q[32], best[32] = {}, error = INFINITY;
    importance<32>(x, w);
    float scale = search_scale<Iq4Levels, 32>(x, w);
    for (int round = 0; round < 4; ++round) {  // the codes for the scale as stored, and again
      const f16 d(scale);
      const float found = group_levels<Iq4Levels, 32>(static_cast<float>(d), x, w, q);
      if (!(found < error)) break;
      error = found;
      b.d = d;
      std::copy(q, q + 32, best);
      const Moments m = moments<32>(x, w, q);
      if (m.qq > 0) scale = m.qx / m.qq;
    }
    for (int j = 0; j < 16; ++j)
      b.qs[j] =
          static_cast<std::uint8_t>(Iq4Levels::code(best[j]) | Iq4Levels::code(best[j + 16]) << 4);
  }
};
static_assert(sizeof(IQ4_NL::Block) == 18);

}  // namespace supersonic::formats
