// FP8 E4M3 as the OCP 8-bit Floating Point Specification (revision 1.0, sections 5.1 and 5.2) has
// it: a sign, four bits of exponent (bias 7), three of mantissa; subnormals, no infinities,
// S.1111.111 is NaN. One byte a number, no scale: the type of a KV cache, not of weights.
//
// Rounds to nearest even and saturates: what lies beyond 448, infinities included, becomes 448.
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

struct Fp8 {
  static constexpr std::string_view name = "fp8";
  static constexpr int ggml_type = -1;
  static constexpr int weights = 1;
  struct Block {
    std::uint8_t code;
  };

  static constexpr float value(std::uint8_t code) {
    const std::uint32_t sign = std::uint32_t{code & 0x80u} << 24, m = code & 0x7fu;
    if (m == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
    if (m >= 8) return std::bit_cast<float>(sign | ((m << 20) + (120u << 23)));
    const float small = static_cast<float>(m) * 0x1p-9f;
    return sign ? -small : small;
  }

  static constexpr std::uint8_t code(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t sign = u >> 24 & 0x80u, m = u & 0x7fffffffu;
    std::uint32_t out = 0x7e;
    if (m > 0x7f800000u) {
      out = 0x7f;
    } else if (m < (121u << 23)) {  // subnormal: the sum's last bit is worth 2^-9
      const float shifted = std::bit_cast<float>(m) + 0x1p14f;
      out = std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0x1p14f);
    } else if (m < (135u << 23) + (7u << 20)) {  // 480; from 448 on all is 448
      const std::uint32_t rounded = ((m + 0x7ffffu + (m >> 20 & 1)) >> 20) - (120u << 3);
      out = rounded < out ? rounded : out;
    }
    return static_cast<std::uint8_t>(sign | out);
  }

  static constexpr void decode(const Block& b, float* out) { *out = value(b.code); }
  static constexpr void encode(const float* w, Block& b) { b.code = code(*w); }
};
static_assert(sizeof(Fp8::Block) == 1 && Fp8::value(0x7e) == 448.0f && Fp8::code(-1e9f) == 0xfe);

}  // namespace supersonic::formats
