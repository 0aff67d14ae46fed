// Checked size arithmetic for numbers that came from a file: every sum and product of untrusted
// sizes goes through here, so that a lying header cannot wrap around a bounds check.
#pragma once
#include <cstdint>
#include <optional>

namespace supersonic::io {

inline std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

inline std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// value rounded up to a multiple of unit (a power of two).
inline std::optional<std::uint64_t> checked_align(std::uint64_t value, std::uint64_t unit) {
  const auto sum = checked_add(value, unit - 1);
  if (!sum) return std::nullopt;
  return *sum & ~(unit - 1);
}

}  // namespace supersonic::io
