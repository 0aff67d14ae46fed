// What sampling means, one source for every backend. Weights of tokens are whole numbers, so sums
// of them do not depend on their order, and a CPU and a GPU choose the same token from the same
// logits.
//
// The order of the steps is that of transformers: repetition penalty, temperature, top-k, top-p,
// min-p, then one draw, in the order of the ids. "More likely" is a total order: the higher logit,
// of equal ones the lower id. What top-k and top-p keep begins at its top. A draw depends on (seed,
// position, sample) alone.
#pragma once
#include <cstdint>
#include <span>

#include "core/rng.h"

namespace supersonic {

// One sequence's settings as kernels read them: as kSamplingWords numbers i32 of a storage.
struct Sampling {
  double halvings = 0;  // log2(e) / temperature, 0: the most likely token
  std::uint64_t seed = 0;
  std::uint64_t least = 0;       // min-p as a weight
  float top_p = 1, penalty = 1;  // 1: off
  std::int32_t top_k = 0;        // 0: off
  std::int32_t vocabulary = 0;   // logits beyond it stand for no token
  std::uint32_t sample = 0, unused = 0;
};
constexpr int kSamplingWords = sizeof(Sampling) / sizeof(std::int32_t);

namespace sampling {

constexpr int kWeightBits = 44;  // weights of up to 2^19 tokens add up below 2^63
constexpr std::uint64_t kMostLikely = std::uint64_t{1} << kWeightBits;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 19;
constexpr std::uint32_t kSite = rng_site("sampler");

constexpr std::uint64_t high_product(std::uint64_t a, std::uint64_t b) {
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

// exp(-t) of 2^63 by its series from t^n / n! on; t of 2^64.
constexpr std::uint64_t factorial(int n) {
  return n < 2 ? 1 : static_cast<std::uint64_t>(n) * factorial(n - 1);
}
template <int n>
constexpr std::uint64_t kTerm = (std::uint64_t{1} << 63) / factorial(n);
template <int n = 0>
constexpr std::uint64_t decay(std::uint64_t t) {
  if constexpr (n == 14)
    return kTerm<n>;
  else
    return kTerm<n> - high_product(t, decay<n + 1>(t));
}

// 2^44 · 2^-x, rounded; x >= 0. Of the fraction's power, the series to t^14 with t < ln 2.
constexpr std::uint64_t weight(double x) {
  if (!(x < kWeightBits + 1)) return 0;
  const auto fixed = static_cast<std::uint64_t>(x * 0x1p46);
  const std::uint64_t t = high_product(fixed << 18, 0xb17217f7d1cf79acull);  // times ln 2
  const int shift = 63 - kWeightBits + static_cast<int>(fixed >> 46);
  return (decay(t) + (std::uint64_t{1} << (shift - 1))) >> shift;
}

// The weight of a token whose logit is x where the highest is `highest`.
constexpr std::uint64_t weight_of(const Sampling& s, float highest, float x) {
  return weight((static_cast<double>(highest) - static_cast<double>(x)) * s.halvings);
}

// Top-p keeps the most likely tokens whose weights reach this.
constexpr std::uint64_t mass(const Sampling& s, std::uint64_t total) {
  const double least = static_cast<double>(s.top_p) * static_cast<double>(total);
  const auto whole = static_cast<std::uint64_t>(least);
  return whole < least ? whole + 1 : whole;
}

// The draw: the token at which the weights before it and its own first exceed this. Below total.
constexpr std::uint64_t draw(const Sampling& s, std::uint32_t position, std::uint64_t total) {
  return high_product(Rng(s.seed, position, kSite, s.sample).bits53() << 11, total);
}

constexpr float penalised(const Sampling& s, float logit) {
  return logit > 0 ? logit / s.penalty : logit * s.penalty;
}
constexpr bool greedy(const Sampling& s) { return s.halvings == 0 || s.top_k == 1; }
constexpr bool keeps_best(const Sampling& s, std::int64_t tokens) {
  return s.top_k > 0 && s.top_k < tokens;
}

// What a draw on the CPU chooses from.
struct Candidate {
  float logit;  // after the repetition penalty, before temperature
  std::int32_t token;
  std::uint64_t weight;
};

// Chooses on the CPU. seen: (logits) bytes, not 0 where the penalty applies. candidates: room for
// as many as there are logits; `kept` of them, by id, are what was drawn from, none after a greedy
// choice. NaN logits are never chosen; throws Error(failure) when the highest is no number.
struct Choice {
  std::int32_t token;
  std::size_t kept;
};
Choice choose(const Sampling& s, std::span<const float> logits, const std::uint8_t* seen,
              std::uint32_t position, std::span<Candidate> candidates);

}  // namespace sampling

// What a step over one token reads, in this order.
enum class StepFeed { id, position, lo, hi, window_lo, at, last };
constexpr int kStepFeeds = 7;

// Feeds of the token at `row` of the cache, which sees all before it; window: of sliding attention.
constexpr void set_step(std::int32_t* step, std::int32_t id, std::int32_t row,
                        std::int64_t window) {
  const std::int64_t first = row + 1 - window;
  step[static_cast<int>(StepFeed::id)] = id;
  step[static_cast<int>(StepFeed::position)] = row;
  step[static_cast<int>(StepFeed::lo)] = 0;
  step[static_cast<int>(StepFeed::hi)] = row;
  step[static_cast<int>(StepFeed::window_lo)] = static_cast<std::int32_t>(first > 0 ? first : 0);
  step[static_cast<int>(StepFeed::at)] = row;
  step[static_cast<int>(StepFeed::last)] = 0;
}

}  // namespace supersonic
