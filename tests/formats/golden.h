// Reads tests/golden/formats/*.bin, and computes the weights that tests/oracle/record_formats.py
// gave the other codecs.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/format.h"

namespace supersonic::testing {

using Bytes = std::vector<std::uint8_t>;

// The sections of a golden file, by name.
inline std::map<std::string, Bytes> read_golden(const std::string& name) {
  std::ifstream in(SUPERSONIC_GOLDEN_DIR "/formats/" + name, std::ios::binary);
  EXPECT_TRUE(in) << name << " is missing; run tests/oracle/record_formats.py";
  std::map<std::string, Bytes> sections;
  std::uint32_t length;
  while (in.read(reinterpret_cast<char*>(&length), 4)) {
    std::string section(length, '\0');
    std::uint64_t size;
    in.read(section.data(), length).read(reinterpret_cast<char*>(&size), 8);
    Bytes bytes(size);
    in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    sections[section] = std::move(bytes);
  }
  return sections;
}

template <class T>
std::vector<T> as(const Bytes& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

// Bell-shaped weights below 1 in magnitude from SplitMix64; heavy: cubed, which gives outliers.
inline std::vector<float> weights(std::uint64_t seed, std::size_t n, bool heavy) {
  std::vector<float> w(n);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    int total = -131070;
    for (int k = 0; k < 4; ++k) total += static_cast<int>(z >> (16 * k) & 0xFFFF);
    const float x = static_cast<float>(total) / 131072.0f;
    w[i] = heavy ? x * x * x : x;
  }
  return w;
}

inline const Format& format(std::string_view name) {
  const Format* f = find_format(name);
  EXPECT_NE(f, nullptr) << name;
  return *f;
}

// A matrix in some format, with its planes.
struct Encoded {
  std::vector<Bytes> planes;
  Planes view() const {
    Planes p;
    for (std::size_t i = 0; i < planes.size(); ++i) p.data[i] = planes[i].data();
    return p;
  }
};
inline Encoded encode(const Format& f, const std::vector<float>& w, std::int64_t rows,
                      std::int64_t cols) {
  Encoded e;
  void* pointers[kMaxPlanes] = {};
  for (int p = 0; p < f.planes; ++p) e.planes.emplace_back(f.plane_bytes(f, p, rows, cols));
  for (int p = 0; p < f.planes; ++p) pointers[p] = e.planes[static_cast<std::size_t>(p)].data();
  f.encode(w.data(), rows, cols, pointers);
  return e;
}
inline std::vector<float> decode(const Format& f, const Planes& planes, std::int64_t first,
                                 std::int64_t count) {
  std::vector<float> w(static_cast<std::size_t>(count));
  f.decode(planes, first, count, w.data());
  return w;
}
inline std::vector<float> decode(const Format& f, const Bytes& blocks, std::int64_t count) {
  return decode(f, Planes{{blocks.data()}}, 0, count);
}

// The same bits, so that -0 is not 0.
inline ::testing::AssertionResult same_bits(const std::vector<float>& a,
                                            const std::vector<float>& b) {
  if (a.size() != b.size())
    return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " values";
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], 4) != 0) {
      return ::testing::AssertionFailure() << "value " << i << " is " << a[i] << ", not " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

inline double relative_mse(const std::vector<float>& w, const std::vector<float>& decoded) {
  double error = 0, power = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double e = static_cast<double>(decoded[i]) - w[i];
    error += e * e;
    power += static_cast<double>(w[i]) * w[i];
  }
  return error / power;
}

}  // namespace supersonic::testing
