// MXFP4 (GGUF type 39; OCP microscaling 1.0): 32 weights in 17 bytes, w = 2^(e - 127) q with a
// shared 8-bit exponent e and 4-bit floats q = +-{0, 1/2, 1, 3/2, 2, 3, 4, 6}.
//
// Byte j holds weight j in its low nibble and weight j + 16 in its high one. The table is doubled
// and the scale halved: for e = 0 and 1 half the scale is subnormal, and still exact. An exponent
// of 255, NaN in the specification, decodes as the next power of two, as ggml reads it.
//
// The encoder tries the exponent that the specification names, with which the largest weight may be
// cut down to 6 where it is up to 8, and the next one; the smaller squared error decides. Weights
// that are of this format already come back as they are.
#pragma once
#include "formats/pieces.h"

namespace supersonic::formats {

struct MXFP4 {
  static constexpr std::string_view name = "mxfp4";
  static constexpr int ggml_type = 39;
  static constexpr int weights = 32;
  struct Block {
    std::uint8_t e;
    std::uint8_t qs[16];
  };

  static constexpr float half_scale(std::uint8_t e) {
    const std::uint32_t exponent = e;
    return std::bit_cast<float>(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
  }
  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float scale = half_scale(b.e);
    for (int i = 0; i < 8; ++i)
      out[i] = scale *
               static_cast<float>(doubled_e2m1(split_nibble(b.qs, piece % 2 * 8 + i, piece >= 2)));
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<MXFP4>(b, out); }

  // The codes nearest to x under an exponent, between two the smaller; returns the squared error.
  static constexpr float nearest(const float* x, std::uint8_t e, std::uint8_t* codes) {
    constexpr float kMiddles[] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};  // doubled, as the levels are
    const float scale = half_scale(e);
    float sum = 0;
    for (int i = 0; i < weights; ++i) {
      const float level = magnitude(x[i]) / scale;
      int code = 0;
      for (const float middle : kMiddles) code += level > middle;
      const float error = magnitude(x[i]) - scale * static_cast<float>(doubled_e2m1(code));
      sum += error * error;
      codes[i] = static_cast<std::uint8_t>(x[i] < 0 && code ? code | 8 : code);
    }
    return sum;
  }
  static constexpr void encode(const float* x, Block& b) {
    const auto bits = std::bit_cast<std::uint32_t>(magnitude(farthest(x, weights)));
    const int named = static_cast<int>(bits >> 23) - 2;  // 4 = 2^2 is the largest level's power
    std::uint8_t codes[weights]{}, wider[weights]{};
    b.e = static_cast<std::uint8_t>(named > 0 ? named : 0);
    const auto next = static_cast<std::uint8_t>(b.e + 1);
    const bool wide = nearest(x, next, wider) < nearest(x, b.e, codes);
    if (wide) b.e = next;
    const std::uint8_t* best = wide ? wider : codes;
    for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<std::uint8_t>(best[j] | best[j + 16] << 4);
  }
};
static_assert(sizeof(MXFP4::Block) == 17);

}  // namespace supersonic::formats
