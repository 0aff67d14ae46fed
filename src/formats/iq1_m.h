// IQ1_M (GGUF type 29): 256 weights in 56 bytes, w = d (2 s + 1) (t +- 1/8) with t from IQ1_S's
// lattice and a 3-bit scale s for each 16 weights.
//
// Each point has its low eight bits in qs and a nibble of qh: three high bits, then the sign of the
// eighth. Four words of scales have four 3-bit scales each, and on top of them a nibble of the
// 16-bit scale d, the lowest first.
#pragma once
#include "formats/iq_grids.h"
#include "formats/pieces.h"

namespace supersonic::formats {

struct IQ1_M {
  static constexpr std::string_view name = "iq1_m";
  static constexpr int ggml_type = 29;
  static constexpr int weights = 256;
  using Table = Iq1SGrid;
  struct Block {
    std::uint8_t qs[32];
    std::uint8_t qh[16];
    std::uint16_t scales[4];
  };

  static constexpr float super_scale(const Block& b) {
    f16 d;
    d.bits = static_cast<std::uint16_t>(b.scales[0] >> 12 | b.scales[1] >> 12 << 4 |
                                        b.scales[2] >> 12 << 8 | b.scales[3] >> 12 << 12);
    return static_cast<float>(d);
  }
  static constexpr void decode8(const Block& b, int piece, float* out, const Table& grid) {
    const int high = nibble(b.qh, piece), k = piece / 2;
    const int s = b.scales[k / 4] >> (k % 4 * 3) & 7;
    const float scale = super_scale(b) * static_cast<float>(2 * s + 1);
    lattice_1bit(grid.points[b.qs[piece] | (high & 7) << 8], high >= 8, scale, out);
  }
  static constexpr void decode(const Block& b, float* out) {
    decode_pieces<IQ1_M>(b, out, kTable<Table>);
  }
};
static_assert(sizeof(IQ1_M::Block) == 56);

}  // namespace supersonic::formats
