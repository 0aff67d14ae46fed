// What the block codecs share: the few scalar helpers from which a decoder or an encoder is
// written.
//
// Everything is constexpr and plain arithmetic, so that a header compiles for the CPU and, with
// nvcc's
// --expt-relaxed-constexpr, for the GPU, and so that a codec can be checked by static_assert.
// Encoders expect finite weights of magnitude up to kLargestWeight (the records in record.h check
// it), which no 16-bit scale can overflow on. A GGUF block starts at an even address: the largest
// member of any block is two bytes wide.
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace supersonic::formats {

static_assert(std::endian::native == std::endian::little,
              "blocks are read in place; they are little-endian");

constexpr float kLargestWeight = 65504.0f;  // the largest finite binary16

constexpr float magnitude(float x) { return x < 0 ? -x : x; }

// The weight of largest magnitude, the first of equals.
constexpr float farthest(const float* w, int n) {
  float found = w[0];
  for (int i = 1; i < n; ++i) {
    if (magnitude(w[i]) > magnitude(found)) found = w[i];
  }
  return found;
}

struct Extremes {
  float low, high;
};
constexpr Extremes extremes(const float* w, int n) {
  Extremes e{w[0], w[0]};
  for (int i = 1; i < n; ++i) {
    if (w[i] < e.low) e.low = w[i];
    if (w[i] > e.high) e.high = w[i];
  }
  return e;
}

// 1 / d, and 0 where that would not be finite: such a scale is 0 once it is rounded to 16 bits, and
// so is the block.
constexpr float inverse_or_zero(float d) {
  constexpr float kSmallest = 0x1.1p-128f;
  return magnitude(d) < kSmallest ? 0.0f : 1 / d;
}

// Drops the fraction of x >= 0 and caps the result.
constexpr int truncate_below(float x, int highest) {
  const int q = static_cast<int>(x);
  return q < highest ? q : highest;
}

// Nearest integer, halves away from zero; |x| < 2^22. The largest float below a half carries
// exactly the halves over.
constexpr int round_half_away(float x) {
  constexpr float kBelowHalf = 0x1.fffffep-2f;
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(x) & 0x80000000u;
  return static_cast<int>(x +
                          std::bit_cast<float>(std::bit_cast<std::uint32_t>(kBelowHalf) | sign));
}

// 32 codes of five bits: low nibbles in qs (byte j: codes j and j + 16), fifth bits in qh (bit i:
// code i).
constexpr void unpack_five_bits(const std::uint8_t* qh, const std::uint8_t* qs, std::uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<std::uint8_t>((qs[j] & 15) | (qh[j / 8] >> (j % 8) & 1) << 4);
    q[j + 16] = static_cast<std::uint8_t>(qs[j] >> 4 | (qh[j / 8 + 2] >> (j % 8) & 1) << 4);
  }
}
constexpr void pack_five_bits(const std::uint8_t* q, std::uint8_t* qh, std::uint8_t* qs) {
  for (int k = 0; k < 4; ++k) qh[k] = 0;
  for (int j = 0; j < 16; ++j) {
    qs[j] = static_cast<std::uint8_t>((q[j] & 15) | q[j + 16] << 4);
    qh[j / 8] = static_cast<std::uint8_t>(qh[j / 8] | (q[j] >> 4) << (j % 8));
    qh[j / 8 + 2] = static_cast<std::uint8_t>(qh[j / 8 + 2] | (q[j + 16] >> 4) << (j % 8));
  }
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes (Q4_K, Q5_K). The first four of each are
// the low six bits of bytes 0-3 and 4-7; the others have their low nibbles in bytes 8-11 and two
// bits on top of bytes 0-3 and 4-7.
struct ScaleMin {
  std::uint8_t scale, min;
};
constexpr ScaleMin unpack_scale_min(const std::uint8_t* packed, int j) {
  if (j < 4) {
    return {static_cast<std::uint8_t>(packed[j] & 63),
            static_cast<std::uint8_t>(packed[j + 4] & 63)};
  }
  return {static_cast<std::uint8_t>((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4),
          static_cast<std::uint8_t>(packed[j + 4] >> 4 | (packed[j] >> 6) << 4)};
}
// From whole numbers 0 to 63.
constexpr void pack_scale_min(const float* scales, const float* mins, std::uint8_t* packed) {
  for (int j = 0; j < 4; ++j) {
    const int scale = static_cast<int>(scales[j + 4]), min = static_cast<int>(mins[j + 4]);
    packed[j] = static_cast<std::uint8_t>(static_cast<int>(scales[j]) | scale >> 4 << 6);
    packed[j + 4] = static_cast<std::uint8_t>(static_cast<int>(mins[j]) | min >> 4 << 6);
    packed[j + 8] = static_cast<std::uint8_t>((scale & 15) | (min & 15) << 4);
  }
}

}  // namespace supersonic::formats
