// Stochastic rounding of fp32 to bf16: up with the probability of what rounding down would lose, so
// that the expected result is the number itself (Gupta et al. 2015, section 3). The draw belongs to
// (seed, step, element) alone: element i of an array takes 16 bits of Philox block i / 8, so that
// CPU and GPU round alike, and a resumed run as the undisturbed one.
#pragma once
#include <bit>

#include "core/dtype.h"
#include "core/rng.h"

namespace supersonic {

constexpr std::uint32_t kRoundingSite = rng_site("stochastic rounding");
constexpr std::int64_t kDrawsPerBlock = 8;  // of 16 bits

// The counter of the block that elements 8 block ... 8 block + 7 draw from.
constexpr PhiloxBlock rounding_counter(std::uint32_t step, std::uint64_t block) {
  return {static_cast<std::uint32_t>(block), step, kRoundingSite,
          static_cast<std::uint32_t>(block >> 32)};
}
constexpr std::uint32_t rounding_draw(const PhiloxBlock& draws, int element) {
  return (draws[static_cast<std::size_t>(element) / 2] >> (element % 2 * 16)) & 0xffffu;
}

// draw: uniform in [0, 2^16). What is not finite stays what it is.
constexpr bf16 round_stochastically(float x, std::uint32_t draw) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bf16(x);
  bf16 result;
  result.bits = static_cast<std::uint16_t>((bits + draw) >> 16);
  return result;
}

}  // namespace supersonic
