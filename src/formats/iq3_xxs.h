// IQ3_XXS (GGUF type 18): 256 weights in 98 bytes, w = +- d (s + 1/2) / 2 g with g from a lattice
// of 256 points of four values 4, 12, 20, 28, 36, 44, 52, 62.
//
// Each four weights have a byte of index in qs; each 32 weights have a little-endian word in rest:
// from the lowest bit up, seven sign bits for each eight weights and the 4-bit scale s.
#pragma once
#include "formats/iq_grids.h"
#include "formats/pieces.h"

namespace supersonic::formats {

struct IQ3_XXS {
  static constexpr std::string_view name = "iq3_xxs";
  static constexpr int ggml_type = 18;
  static constexpr int weights = 256;
  using Table = Iq3XxsGrid;
  struct Block {
    f16 d;
    std::uint8_t qs[64];
    std::uint16_t rest[16];
  };

  static constexpr int level(int code) { return 4 + 8 * code + (code == 7 ? 2 : 0); }

  static constexpr void decode8(const Block& b, int piece, float* out, const Table& grid) {
    const std::uint16_t* words = b.rest + piece / 4 * 2;
    const std::uint32_t rest = words[0] | static_cast<std::uint32_t>(words[1]) << 16;
    const float scale = static_cast<float>(b.d) * (0.5f + static_cast<float>(rest >> 28)) * 0.5f;
    const int signs = signs_of(static_cast<int>(rest >> (piece % 4 * 7) & 127));
    for (int i = 0; i < 8; ++i) {
      const int point = grid.points[b.qs[2 * piece + i / 4]];
      out[i] = scale * signed_level(level(point >> (i % 4 * 4) & 7), signs, i);
    }
  }
  static constexpr void decode(const Block& b, float* out) {
    decode_pieces<IQ3_XXS>(b, out, kTable<Table>);
  }
};
static_assert(sizeof(IQ3_XXS::Block) == 98);

}  // namespace supersonic::formats
