// The sixteen levels of IQ4_NL and IQ4_XS, denser around zero; and, for the encoders, which of them
// is nearest.
#pragma once
#include <cstdint>

namespace supersonic::formats {

// Packed in two words, so that device code needs no table in memory.
constexpr int iq4_level(int code) {
  constexpr std::uint64_t kLow = 0xf6eaddcfbfad9881, kHigh = 0x7159453526190d01;
  const auto byte = static_cast<std::uint8_t>((code < 8 ? kLow : kHigh) >> (code % 8 * 8));
  return static_cast<std::int8_t>(byte);
}

struct Iq4Levels {
  static constexpr float lowest = -127, highest = 113, step = 2;
  static constexpr bool both_ends = true;
  // q: the level nearest to inverse * x; halfway between two goes up. A pass over the weights for
  // each boundary between levels, since that compiles to vectors.
  template <int N>
  static void nearest(const float* x, float inverse, float* q) {
    float scaled[N];
    for (int i = 0; i < N; ++i) scaled[i] = x[i] * inverse, q[i] = lowest;
    for (int code = 1; code < 16; ++code) {
      const int below = iq4_level(code - 1), here = iq4_level(code);
      const float middle = 0.5f * static_cast<float>(below + here);
      const float gap = static_cast<float>(here - below);
      for (int i = 0; i < N; ++i) q[i] += scaled[i] >= middle ? gap : 0.0f;
    }
  }
  static int code(float level) {
    int found = 0;
    while (iq4_level(found) < static_cast<int>(level)) ++found;
    return found;
  }
};

}  // namespace supersonic::formats
