// Tokens that top-k drops cost one comparison each; weights are made of what is left.
#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace supersonic::sampling {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

bool before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// The list of one draw, in memory of the caller.
struct List {
  const Sampling& s;
  std::span<const float> logits;
  const std::uint8_t* seen;
  std::span<Candidate> c;
  std::size_t kept = 0;

  float at(std::size_t i) const {
    return s.penalty != 1 && seen[i] ? penalised(s, logits[i]) : logits[i];
  }

  void collect_all() {
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const float logit = at(i);
      if (logit == logit) c[kept++] = {logit, static_cast<std::int32_t>(i), 0};
    }
  }

  // One pass that keeps up to 2k candidates above a rising threshold and halves them whenever they
  // are full: about one comparison a token. Of what equals the threshold the first ones are there.
  void collect_best(std::size_t k) {
    const std::size_t limit = std::min(2 * k, c.size());
    std::size_t i = 0;
    for (; i < logits.size() && kept < limit; ++i) {
      const float logit = at(i);
      if (logit == logit) c[kept++] = {logit, static_cast<std::int32_t>(i), 0};
    }
    if (kept <= k) return;
    float threshold = keep_best(k);
    for (; i < logits.size(); ++i) {
      const float logit = at(i);
      if (!(logit > threshold)) continue;
      c[kept++] = {logit, static_cast<std::int32_t>(i), 0};
      if (kept == limit) threshold = keep_best(k);
    }
    if (kept > k) keep_best(k);
  }
  // Returns the lowest logit of the k that are left.
  float keep_best(std::size_t k) {
    std::nth_element(c.begin(), c.begin() + static_cast<std::ptrdiff_t>(k - 1),
                     c.begin() + static_cast<std::ptrdiff_t>(kept), before);
    kept = k;
    return c[k - 1].logit;
  }

  // Drops the impossible; returns the sum of the weights.
  std::uint64_t weigh() {
    float highest = kLowest;
    for (std::size_t i = 0; i < kept; ++i) highest = std::max(highest, c[i].logit);
    CHECK(kept && std::isfinite(highest),
          "sampler: the highest logit is {}; the model's weights or its arithmetic are broken",
          highest);
    std::uint64_t total = 0;
    std::size_t left = 0;
    for (std::size_t i = 0; i < kept; ++i) {
      const std::uint64_t w = weight_of(s, highest, c[i].logit);
      if (w) c[left++] = {c[i].logit, c[i].token, w}, total += w;
    }
    kept = left;
    return total;
  }

  // Keeps the most likely candidates whose weights reach `mass`. Sorts four times as many each
  // round: a peaked distribution over a large vocabulary is not sorted to its end.
  void keep_mass(std::uint64_t mass) {
    std::uint64_t sum = 0;
    std::size_t left = 0, sorted = 0;
    for (std::size_t step = 64; left < kept && sum < mass; step *= 4) {
      const std::size_t end = std::min(sorted + step, kept);
      const auto first = c.begin() + static_cast<std::ptrdiff_t>(sorted),
                 last = c.begin() + static_cast<std::ptrdiff_t>(end);
      if (end < kept)
        std::nth_element(first, last, c.begin() + static_cast<std::ptrdiff_t>(kept), before);
      std::sort(first, last, before);
      for (sorted = end; left < end && sum < mass; ++left) sum += c[left].weight;
    }
    kept = left;
  }

  void drop_light(std::uint64_t least) {
    const auto end = std::remove_if(c.begin(), c.begin() + static_cast<std::ptrdiff_t>(kept),
                                    [&](const Candidate& x) { return x.weight < least; });
    kept = static_cast<std::size_t>(end - c.begin());
  }

  void sort_by_id() {
    std::sort(c.begin(), c.begin() + static_cast<std::ptrdiff_t>(kept),
              [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  }
};

// The first of the highest. Sixteen running maxima, so that vectors make them; then where it
// stands.
std::int32_t most_likely(std::span<const float> logits) {
  constexpr std::size_t width = 16;
  float lanes[width];
  std::fill(lanes, lanes + width, kLowest);
  std::size_t i = 0;
  for (; i + width <= logits.size(); i += width)
    for (std::size_t k = 0; k < width; ++k)
      lanes[k] = logits[i + k] > lanes[k] ? logits[i + k] : lanes[k];
  float highest = kLowest;
  for (float x : lanes) highest = std::max(highest, x);
  for (; i < logits.size(); ++i) highest = logits[i] > highest ? logits[i] : highest;
  const auto at = std::find(logits.begin(), logits.end(), highest);
  return at == logits.end() ? -1 : static_cast<std::int32_t>(at - logits.begin());
}

std::int32_t most_likely(const List& list) {
  if (list.s.penalty == 1) return most_likely(list.logits);
  std::int32_t best = -1;
  float highest = kLowest;
  for (std::size_t i = 0; i < list.logits.size(); ++i) {
    const float logit = list.at(i);
    if (logit > highest || (best < 0 && logit == highest))
      highest = logit, best = static_cast<std::int32_t>(i);
  }
  return best;
}

}  // namespace

Choice choose(const Sampling& s, std::span<const float> logits, const std::uint8_t* seen,
              std::uint32_t position, std::span<Candidate> candidates) {
  List list{s, logits, seen, candidates};
  if (greedy(s)) {
    const std::int32_t best = most_likely(list);
    CHECK(best >= 0,
          "sampler: no logit is a number; the model's weights or its arithmetic are broken");
    return {best, 0};
  }
  const bool best = keeps_best(s, static_cast<std::int64_t>(logits.size()));
  best ? list.collect_best(static_cast<std::size_t>(s.top_k)) : list.collect_all();
  std::uint64_t total = list.weigh();
  if (s.top_p < 1) list.keep_mass(mass(s, total));
  list.drop_light(s.least);
  if (best || s.top_p < 1) list.sort_by_id();
  total = 0;
  for (std::size_t i = 0; i < list.kept; ++i) total += candidates[i].weight;
  std::uint64_t rest = draw(s, position, total);
  std::size_t i = 0;
  while (rest >= candidates[i].weight) rest -= candidates[i++].weight;
  return {candidates[i].token, list.kept};
}

}  // namespace supersonic::sampling
