// IQ1_S (GGUF type 19): 256 weights in 50 bytes, w = d (2 s + 1) (t +- 1/8) with t from a lattice
// of 2048 points of eight values -1, 0, 1.
//
// Each 32 weights have four points, whose low eight bits are in qs, and a 16-bit word qh: three
// high bits of each point, then s (3 bits), then the sign of the eighth.
#pragma once
#include "formats/iq_grids.h"
#include "formats/pieces.h"

namespace supersonic::formats {

struct IQ1_S {
  static constexpr std::string_view name = "iq1_s";
  static constexpr int ggml_type = 19;
  static constexpr int weights = 256;
  using Table = Iq1SGrid;
  struct Block {
    f16 d;
    std::uint8_t qs[32];
    std::uint16_t qh[8];
  };

  static constexpr void decode8(const Block& b, int piece, float* out, const Table& grid) {
    const int word = b.qh[piece / 4];
    const int point = b.qs[piece] | (word >> (piece % 4 * 3) & 7) << 8;
    const float scale = static_cast<float>(b.d) * static_cast<float>(2 * (word >> 12 & 7) + 1);
    lattice_1bit(grid.points[point], word >> 15 != 0, scale, out);
  }
  static constexpr void decode(const Block& b, float* out) {
    decode_pieces<IQ1_S>(b, out, kTable<Table>);
  }
};
static_assert(sizeof(IQ1_S::Block) == 50);

}  // namespace supersonic::formats
