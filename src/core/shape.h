// Shape: up to six dimensions, inline, row-major (the last one is contiguous unless a layout says otherwise).
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace supersonic {

constexpr int kMaxRank = 6;

struct Shape {
  std::array<std::int64_t, kMaxRank> dims{};
  int rank = 0;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<std::int64_t> list) {
    for (auto d : list) dims[rank++] = d;
  }
  explicit Shape(std::span<const std::int64_t> list) {
    for (auto d : list) dims[rank++] = d;
  }
  // Negative indices count from the end.
  constexpr std::int64_t operator[](int i) const { return dims[i < 0 ? rank + i : i]; }
  constexpr std::int64_t& operator[](int i) { return dims[i < 0 ? rank + i : i]; }
  constexpr std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  constexpr bool operator==(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dims[i] != o.dims[i]) return false;
    return true;
  }
};

std::string to_string(const Shape& shape);  // "(2, 33, 4096)"

}  // namespace supersonic
