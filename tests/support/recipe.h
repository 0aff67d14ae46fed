// Numbers that tests and the Python recorders make alike, bit for bit, without sharing a file:
// tests/oracle/recipe.py in C++. Element i of the stream NAME is a hash of (NAME, i), so any part
// can be made alone.  tests/golden/README.md has the formulas.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::recipe {

// FNV-1a, 64 bit.
inline uint64_t seed_of(std::string_view name) {
  uint64_t value = 0xCBF29CE484222325;
  for (const unsigned char byte : name) value = (value ^ byte) * 0x100000001B3;
  return value;
}

// splitmix64's finalizer.
inline uint64_t word(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

// In (-scale, scale), exact for a power of two.
inline float uniform(uint64_t seed, uint64_t i, float scale = 1.0F) {
  const auto odd = static_cast<int64_t>(word(seed, i) >> 40) * 2 - (int64_t{1} << 24) + 1;
  return static_cast<float>(odd) / 16777216.0F * scale;
}

inline std::vector<float> uniform(std::string_view name, size_t count, float scale = 1.0F) {
  std::vector<float> values(count);
  const uint64_t seed = seed_of(name);
  for (size_t i = 0; i < count; ++i) values[i] = uniform(seed, i, scale);
  return values;
}

inline double sign(uint64_t seed, uint64_t i) { return word(seed, i) >> 63 ? -1.0 : 1.0; }

inline int64_t below(uint64_t seed, uint64_t i, int64_t limit) {
  return static_cast<int64_t>((word(seed, i) >> 33) % static_cast<uint64_t>(limit));
}

// count sums of the values under random signs; the mean square of two arrays' differences in them
// is an unbiased estimate of the squared norm of the arrays' difference.
inline std::vector<double> projections(std::span<const float> values, size_t count = 16) {
  std::vector<double> sums(count, 0.0);
  for (size_t k = 0; k < count; ++k) {
    const uint64_t seed = seed_of("projection " + std::to_string(k));
    for (size_t i = 0; i < values.size(); ++i) sums[k] += sign(seed, i) * values[i];
  }
  return sums;
}

// The estimated relative norm of (values - golden), where of golden only the norm and the
// projections are known.
inline double relative_error(std::span<const float> values,
                             std::span<const float> golden_projections, double golden_norm) {
  const std::vector<double> ours = projections(values, golden_projections.size());
  double sum = 0;
  for (size_t k = 0; k < ours.size(); ++k) {
    const double difference = ours[k] - golden_projections[k];
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(ours.size())) / golden_norm;
}

}  // namespace supersonic::recipe
