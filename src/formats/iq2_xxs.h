// IQ2_XXS (GGUF type 16): 256 weights in 66 bytes, w = +- d (s + 1/2) / 4 g with g from a lattice
// of 256 points of eight values 8, 25, 43.
//
// Each 32 weights have four 16-bit words: two hold the four points' indices, a byte each; two hold,
// from the lowest bit up, seven sign bits for each point and the 4-bit scale s.
#pragma once
#include "formats/iq_grids.h"
#include "formats/pieces.h"

namespace supersonic::formats {

struct IQ2_XXS {
  static constexpr std::string_view name = "iq2_xxs";
  static constexpr int ggml_type = 16;
  static constexpr int weights = 256;
  using Table = Iq2XxsGrid;
  struct Block {
    f16 d;
    std::uint16_t qs[32];
  };

  static constexpr void decode8(const Block& b, int piece, float* out, const Table& grid) {
    const std::uint16_t* words = b.qs + piece / 4 * 4;
    const int p = piece % 4, index = words[p / 2] >> (p % 2 * 8) & 255;
    const std::uint32_t rest = words[2] | static_cast<std::uint32_t>(words[3]) << 16;
    const float scale = static_cast<float>(b.d) * (0.5f + static_cast<float>(rest >> 28)) * 0.25f;
    lattice_2bit(grid.points[index], signs_of(static_cast<int>(rest >> (7 * p) & 127)), scale, out);
  }
  static constexpr void decode(const Block& b, float* out) {
    decode_pieces<IQ2_XXS>(b, out, kTable<Table>);
  }
};
static_assert(sizeof(IQ2_XXS::Block) == 66);

}  // namespace supersonic::formats
