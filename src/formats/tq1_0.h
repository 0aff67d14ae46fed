// TQ1_0 (GGUF type 34): 256 weights in 54 bytes, w = d t with t = -1, 0, 1, five (in the last four
// bytes four) to a byte.
//
// A byte is a fraction of 256 whose base-3 digits, the first after the point first, are t + 1:
// digit n is the integer part of 3 (3^n byte mod 256) / 256. Weight i: of the first 160, digit i /
// 32 of byte i % 32; of the next 80, digit i / 16 of byte 32 + i % 16; of the last 16, digit i / 4
// of qh[i % 4].
//
// The encoder is for weights that are -d, 0 and d already: d is the largest magnitude, of others
// the nearest of the three is taken. Its bytes equal gguf-py's.
#pragma once
#include "formats/pieces.h"

namespace supersonic::formats {

struct TQ1_0 {
  static constexpr std::string_view name = "tq1_0";
  static constexpr int ggml_type = 34;
  static constexpr int weights = 256;
  static constexpr std::string_view fallback = "q4_0";
  struct Block {
    std::uint8_t qs[48];
    std::uint8_t qh[4];
    f16 d;
  };

  static constexpr int digit(int byte, int n) {
    int power = 1;
    for (int k = 0; k < n; ++k) power *= 3;
    return (byte * power & 255) * 3 >> 8;
  }
  static constexpr int code(const Block& b, int i) {
    if (i < 160) return digit(b.qs[i % 32], i / 32);
    if (i < 240) return digit(b.qs[32 + i % 16], (i - 160) / 16);
    return digit(b.qh[i % 4], (i - 240) / 4);
  }
  static constexpr void decode8(const Block& b, int piece, float* out) {
    const float d(b.d);
    for (int i = 0; i < 8; ++i) out[i] = d * static_cast<float>(code(b, 8 * piece + i) - 1);
  }
  static constexpr void decode(const Block& b, float* out) { decode_pieces<TQ1_0>(b, out); }

  // Five digits, of the weights x, x + step, …, as a fraction of 256 rounded up; of the last bytes,
  // which have four, the fifth is 0.
  static constexpr std::uint8_t packed(const float* x, int step, int digits, float inverse) {
    int value = 0;
    for (int n = 0; n < 5; ++n)
      value = 3 * value + (n < digits ? round_half_away(x[n * step] * inverse) + 1 : 0);
    return static_cast<std::uint8_t>((value * 256 + 242) / 243);
  }
  static constexpr void encode(const float* x, Block& b) {
    const float d = magnitude(farthest(x, weights)), inverse = inverse_or_zero(d);
    b.d = f16(d);
    for (int i = 0; i < 32; ++i) b.qs[i] = packed(x + i, 32, 5, inverse);
    for (int i = 0; i < 16; ++i) b.qs[32 + i] = packed(x + 160 + i, 16, 5, inverse);
    for (int i = 0; i < 4; ++i) b.qh[i] = packed(x + 240 + i, 4, 4, inverse);
  }
};
static_assert(sizeof(TQ1_0::Block) == 54);

}  // namespace supersonic::formats
