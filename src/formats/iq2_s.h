// IQ2_S (GGUF type 22): 256 weights in 82 bytes, w = +- d (s + 1/2) / 4 g with g from a lattice of
// 1024 points of eight values 8, 25, 43, and a 4-bit scale s for each 16 weights.
//
// Each eight weights have the low eight bits of their index in qs, two high bits in qh, and a byte
// of signs.
#pragma once
#include "formats/iq_grids.h"
#include "formats/pieces.h"

namespace supersonic::formats {

struct IQ2_S {
  static constexpr std::string_view name = "iq2_s";
  static constexpr int ggml_type = 22;
  static constexpr int weights = 256;
  using Table = Iq2SGrid;
  struct Block {
    f16 d;
    std::uint8_t qs[32];
    std::uint8_t signs[32];
    std::uint8_t qh[8];
    std::uint8_t scales[8];
  };

  static constexpr void decode8(const Block& b, int piece, float* out, const Table& grid) {
    const int index = b.qs[piece] | (b.qh[piece / 4] >> (piece % 4 * 2) & 3) << 8;
    const int s = nibble(b.scales, piece / 2);
    const float scale = static_cast<float>(b.d) * (0.5f + static_cast<float>(s)) * 0.25f;
    lattice_2bit(grid.points[index], b.signs[piece], scale, out);
  }
  static constexpr void decode(const Block& b, float* out) {
    decode_pieces<IQ2_S>(b, out, kTable<Table>);
  }
};
static_assert(sizeof(IQ2_S::Block) == 82);

}  // namespace supersonic::formats
