// IQ2_XS (GGUF type 17): 256 weights in 74 bytes, w = +- d (s + 1/2) / 4 g with g from a lattice of
// 512 points of eight values 8, 25, 43, and a 4-bit scale s for each 16 weights.
//
// Each eight weights have a 16-bit word: nine bits of index, seven of signs.
#pragma once
#include "formats/iq_grids.h"
#include "formats/pieces.h"

namespace supersonic::formats {

struct IQ2_XS {
  static constexpr std::string_view name = "iq2_xs";
  static constexpr int ggml_type = 17;
  static constexpr int weights = 256;
  using Table = Iq2XsGrid;
  struct Block {
    f16 d;
    std::uint16_t qs[32];
    std::uint8_t scales[8];
  };

  static constexpr void decode8(const Block& b, int piece, float* out, const Table& grid) {
    const int word = b.qs[piece], s = nibble(b.scales, piece / 2);
    const float scale = static_cast<float>(b.d) * (0.5f + static_cast<float>(s)) * 0.25f;
    lattice_2bit(grid.points[word & 511], signs_of(word >> 9), scale, out);
  }
  static constexpr void decode(const Block& b, float* out) {
    decode_pieces<IQ2_XS>(b, out, kTable<Table>);
  }
};
static_assert(sizeof(IQ2_XS::Block) == 74);

}  // namespace supersonic::formats
