// IQ3_S (GGUF type 21): 256 weights in 110 bytes, w = +- d (2 s + 1) g with g from a lattice of 512
// points of four odd values 1 to 15, and a 4-bit scale s for each 32 weights.
//
// Each four weights have the low eight bits of their index in qs and the ninth in qh; each eight
// have a byte of signs.
#pragma once
#include "formats/iq_grids.h"
#include "formats/pieces.h"

namespace supersonic::formats {

struct IQ3_S {
  static constexpr std::string_view name = "iq3_s";
  static constexpr int ggml_type = 21;
  static constexpr int weights = 256;
  using Table = Iq3SGrid;
  struct Block {
    f16 d;
    std::uint8_t qs[64];
    std::uint8_t qh[8];
    std::uint8_t signs[32];
    std::uint8_t scales[4];
  };

  static constexpr void decode8(const Block& b, int piece, float* out, const Table& grid) {
    const int s = nibble(b.scales, piece / 4);
    const float scale = static_cast<float>(b.d) * static_cast<float>(2 * s + 1);
    for (int i = 0; i < 8; ++i) {
      const int k = 2 * piece + i / 4;
      const int point = grid.points[b.qs[k] | (b.qh[k / 8] >> (k % 8) & 1) << 8];
      out[i] = scale * signed_level(2 * (point >> (i % 4 * 4) & 7) + 1, b.signs[piece], i);
    }
  }
  static constexpr void decode(const Block& b, float* out) {
    decode_pieces<IQ3_S>(b, out, kTable<Table>);
  }
};
static_assert(sizeof(IQ3_S::Block) == 110);

}  // namespace supersonic::formats
