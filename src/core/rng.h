// Random numbers by counter: a draw is a pure function of (seed, step, site, sample, index), so
// replays, clones, resumed runs and other world sizes draw the same numbers, and nothing is stored
// but the key. Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1,
// 2, 3", SC 2011, section 3.3.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace supersonic {

using PhiloxBlock = std::array<std::uint32_t, 4>;

constexpr PhiloxBlock philox(PhiloxBlock counter, std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0],
                        p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {
        static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
        static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return counter;
}

// The place in the program that draws: a stable number from a name (FNV-1a), so that a new site
// changes no old one.
constexpr std::uint32_t rng_site(std::string_view name) {
  std::uint32_t hash = 2166136261u;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

// The stream of one (seed, step, site, sample): 2^34 numbers, readable in order or by index.
class Rng {
 public:
  constexpr Rng(std::uint64_t seed, std::uint32_t step, std::uint32_t site, std::uint32_t sample)
      : key_(seed), step_(step), site_(site), sample_(sample) {}

  constexpr std::uint32_t at(std::uint64_t index) const {
    return philox({static_cast<std::uint32_t>(index >> 2), step_, site_, sample_}, key_)[index & 3];
  }
  constexpr std::uint32_t next() {
    if ((index_ & 3) == 0)
      block_ = philox({static_cast<std::uint32_t>(index_ >> 2), step_, site_, sample_}, key_);
    return block_[index_++ & 3];
  }
  constexpr std::uint64_t bits53() {  // [0, 2^53)
    const std::uint64_t high = next(), low = next();
    return (high << 21) | (low >> 11);
  }
  constexpr double uniform() {  // [0, 1), 53 bits
    return static_cast<double>(bits53()) * 0x1p-53;
  }
  constexpr std::uint32_t below(std::uint32_t n) {  // [0, n) without bias (Lemire 2019); n >= 1
    std::uint64_t product = std::uint64_t{next()} * n;
    const std::uint32_t threshold = static_cast<std::uint32_t>(-n) % n;
    while (static_cast<std::uint32_t>(product) < threshold) product = std::uint64_t{next()} * n;
    return static_cast<std::uint32_t>(product >> 32);
  }
  double normal() {  // mean 0, variance 1 (Box-Muller, one of the pair)
    const double radius = std::sqrt(-2 * std::log1p(-uniform()));
    return radius * std::cos(6.283185307179586476925 * uniform());
  }

 private:
  std::uint64_t key_, index_ = 0;
  std::uint32_t step_, site_, sample_;
  PhiloxBlock block_{};
};

}  // namespace supersonic
