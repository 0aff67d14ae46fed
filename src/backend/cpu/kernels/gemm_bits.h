// What the inner loops share in plain C++: loads, 16-bit floats, a group of 32 quantized weights and
// what its codes are made of. Part of gemm_generic.h; compiled for several instruction sets, so that
// everything lives in an unnamed namespace.
#pragma once
#include <cstdint>

#include "backend/cpu/kernels/gemm_inner.h"

namespace supersonic::cpu {
namespace {

// ---- scalars
// ----------------------------------------------------------------------------------------------------------

inline std::uint32_t bits_of(float x) {
  std::uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  return u;
}
inline float float_of(std::uint32_t u) {
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
}
inline std::uint16_t load16(const void* p) {
  std::uint16_t u;
  __builtin_memcpy(&u, p, 2);
  return u;
}
inline std::uint32_t load32(const void* p) {
  std::uint32_t u;
  __builtin_memcpy(&u, p, 4);
  return u;
}
inline std::uint64_t load64(const void* p) {
  std::uint64_t u;
  __builtin_memcpy(&u, p, 8);
  return u;
}
inline float from_bf16(std::uint16_t h) { return float_of(std::uint32_t{h} << 16); }
inline std::uint16_t to_bf16_bits(float x) {
  const std::uint32_t u = bits_of(x);
  const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16, nan = (u >> 16) | 0x40;
  return static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}
// A half's magnitude shifted into place is the value times 2^-112, exact also for subnormals.
inline float from_f16(std::uint16_t h) {
  const std::uint32_t magnitude = (h & 0x7fffu) << 13, sign = std::uint32_t{h & 0x8000u} << 16;
  const float scaled = float_of(magnitude) * 0x1p112f;
  const std::uint32_t special = magnitude | 0x7f800000u;
  return float_of(sign | (magnitude >= 0x0f800000u ? special : bits_of(scaled)));
}
inline std::uint16_t to_f16_bits(float x) {
  const std::uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude >= 0x7f800000u)
    return static_cast<std::uint16_t>(sign | (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u));
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u)  // subnormal: adding one half rounds at the right bit
    return static_cast<std::uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u));
  return static_cast<std::uint16_t>(
      sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13));
}

// ---- quantized groups
// -------------------------------------------------------------------------------------------------

struct Group {
  std::uint8_t codes[32];
  float scale[2], min[2];  // per 16 weights
};

inline void nibbles(const std::uint8_t* q, std::uint8_t* codes) {
  for (int j = 0; j < 16; ++j) {
    codes[j] = q[j] & 15;
    codes[j + 16] = q[j] >> 4;
  }
}
inline void fifth_bits(std::uint32_t high, std::uint8_t* codes) {
  for (int j = 0; j < 32; ++j)
    codes[j] = static_cast<std::uint8_t>(codes[j] | (high >> j & 1) << 4);
}
inline void both(float* pair, float value) { pair[0] = pair[1] = value; }

// Scale and minimum of sub-block j of a Q4_K or Q5_K block: 6 bits each, packed in 12 bytes.
inline void scale_min_6bit(const std::uint8_t* b, int j, int& scale, int& min) {
  scale = j < 4 ? b[j] & 63 : (b[j + 4] & 15) | (b[j - 4] >> 6) << 4;
  min = j < 4 ? b[j + 4] & 63 : b[j + 4] >> 4 | (b[j] >> 6) << 4;
}

// Scale k of the sixteen in a Q3_K block: six bits, a nibble in the first eight bytes and two bits in
// the last four.
inline int q3_k_scale(const std::uint8_t* b, int k) {
  return ((b[k % 8] >> (k / 8 * 4) & 15) | (b[8 + k % 4] >> (k / 4 * 2) & 3) << 4) - 32;
}

// Formats whose nibbles stand for levels: the level plus 128 or 12, as unsigned codes.
constexpr std::uint8_t kIq4Codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                        129, 141, 153, 166, 181, 197, 217, 241};
constexpr std::uint8_t kE2m1Codes[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                         12, 11, 10, 9,  8,  6,  4,  0};
inline void look_up(const std::uint8_t* table, std::uint8_t* codes) {
  for (int j = 0; j < 32; ++j) codes[j] = table[codes[j]];
}
// Half of the power of two that an MXFP4 block's first byte stands for; the codes are doubled.
inline float e8m0_half(std::uint8_t e) {
  const std::uint32_t exponent = e;
  return float_of(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
}
// The scale of 32 weights in an IQ4_XS block, without its d.
inline int iq4_xs_scale(const std::uint8_t* b, int sub) {
  return ((b[4 + sub / 2] >> (sub % 2 * 4) & 15) | (load16(b + 2) >> (2 * sub) & 3) << 4) - 32;
}

}  // namespace
}  // namespace supersonic::cpu
