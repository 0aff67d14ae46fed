// The 8-bit dynamic map: 256 values whose distance grows with their size, seven decades below the
// largest.
//
// Decade i (0 ... 6) covers 10^(i-7) ... 10^(i-6) with the midpoints of 2^i equal cells (signed
// map: both signs) or 2^(i+1) cells (unsigned); 0 and 1 complete the 256 (8-bit optimizers, arXiv
// 2110.02861, section 2.1). The values equal bitsandbytes' create_dynamic_map bit for bit. A tensor
// is cut into blocks, each divided by its largest magnitude. Optimizer moments use blocks of 256: m
// the signed map, v the unsigned one; NF4 packs its scales so too.
//
// encode() is the nearest value, of two equally near the smaller. It costs one table read and one
// comparison: the cells that the sign, exponent and seven mantissa bits select are narrower than
// the values are apart.
#pragma once
#include <bit>
#include <cstdint>

namespace supersonic::formats {

struct Dynamic8 {
  float values[256] = {};
  float middles[256] = {};  // middles[c]: between values c and c + 1; the last is infinite

  constexpr explicit Dynamic8(bool is_signed) {
    int n = 0;
    values[n++] = 0;
    values[n++] = 1;
    for (int decade = 0; decade < 7; ++decade) n = add_decade(decade, is_signed, n);
    for (int i = 1; i < 256; ++i) {  // insertion sort
      const float v = values[i];
      int j = i;
      for (; j > 0 && values[j - 1] > v; --j) values[j] = values[j - 1];
      values[j] = v;
    }
    for (int i = 0; i < 255; ++i) middles[i] = 0.5f * (values[i] + values[i + 1]);
    middles[255] = std::bit_cast<float>(0x7f800000u);
    fill_cells();
  }

  // Code of x, |x| <= 1.
  constexpr std::uint8_t encode(float x) const {
    const int start = first_code(x);
    return static_cast<std::uint8_t>(start + (x > middles[start]));
  }
  constexpr float decode(std::uint8_t code) const { return values[code]; }

  // Encodes n values against their largest magnitude, which is returned; all codes are 0 where that
  // is 0 or too small to divide by. Decode as values[code] * result.
  constexpr float encode_block(const float* x, int n, std::uint8_t* codes) const {
    float largest = 0;
    for (int i = 0; i < n; ++i) {
      const float a = x[i] < 0 ? -x[i] : x[i];
      if (a > largest) largest = a;
    }
    if (largest < kSmallestBlock) {
      for (int i = 0; i < n; ++i) codes[i] = 0;
      return 0;
    }
    const float inverse = 1 / largest;
    for (int i = 0; i < n; ++i) codes[i] = encode(clamped(x[i] * inverse));
    return largest;
  }
  constexpr void decode_block(const std::uint8_t* codes, int n, float largest, float* x) const {
    for (int i = 0; i < n; ++i) x[i] = values[codes[i]] * largest;
  }

  static constexpr float clamped(float x) { return x < -1 ? -1.0f : x > 1 ? 1.0f : x; }
  static constexpr float kSmallestBlock = 0x1.1p-128f;  // its inverse is finite

 private:
  static constexpr int kMantissaBits = 7, kLowestExponent = 127 - 23;
  static constexpr int kCells = 24 << kMantissaBits;  // [2^-23, 2), and one cell below
  std::uint8_t first_[2][kCells + 1] = {};            // by sign: the smallest code within the cell

  constexpr int add_decade(int decade, bool is_signed, int n) {
    constexpr double kPowers[7] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
    const auto power = static_cast<float>(kPowers[decade]);
    const int cells = is_signed ? 1 << decade : 2 << decade;
    for (int i = 0; i < cells; ++i) {
      const float middle = (boundary(i, cells) + boundary(i + 1, cells)) / 2.0f;
      values[n++] = power * middle;
      if (is_signed) values[n++] = -power * middle;
    }
    return n;
  }
  // The i-th of cells + 1 evenly spaced points from 0.1 to 1, counted from the nearer end, rounded
  // once.
  static constexpr float boundary(int i, int cells) {
    const double step = (1.0f - 0.1f) / static_cast<float>(cells);
    return static_cast<float>(i < (cells + 1) / 2 ? double{0.1f} + step * i
                                                  : 1.0 - step * (cells - i));
  }

  static constexpr int cell_of(std::uint32_t magnitude_bits) {
    const int key = static_cast<int>(magnitude_bits >> (23 - kMantissaBits)),
              lowest = kLowestExponent << kMantissaBits;
    return key < lowest ? 0 : key - lowest + 1;
  }
  constexpr int first_code(float x) const {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    return first_[bits >> 31][cell_of(bits & 0x7fffffffu)];
  }
  // In a cell of positive numbers the lowest is its start; in one of negative numbers, just above
  // minus its end.
  constexpr void fill_cells() {
    int positive = 0, negative = 255;
    for (int c = 0; c <= kCells; ++c) {
      const auto start_bits = static_cast<std::uint32_t>(c - 1) << (23 - kMantissaBits);
      const float start = c == 0 ? 0.0f : at(start_bits),
                  end = at(start_bits + (1u << (23 - kMantissaBits)));
      while (middles[positive] < start) ++positive;
      while (negative > 0 && middles[negative - 1] > -end) --negative;
      first_[0][c] = static_cast<std::uint8_t>(positive);
      first_[1][c] = static_cast<std::uint8_t>(negative);
    }
  }
  static constexpr float at(std::uint32_t bits_above_lowest) {
    return std::bit_cast<float>(bits_above_lowest + (std::uint32_t{kLowestExponent} << 23));
  }
};

extern const Dynamic8 kDynamicSigned;    // -0.993 ... 1, with 0
extern const Dynamic8 kDynamicUnsigned;  // 0 ... 1

}  // namespace supersonic::formats
