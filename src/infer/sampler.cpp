// Tokens that top-k drops cost one comparison each; exponentials are taken of what is left, in
// fp64.
#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/rng.h"

namespace supersonic::infer {
namespace {

constexpr std::uint32_t kSite = rng_site("sampler");

// A total order, so that selection and sorting have one result: higher logit first, then the lower
// id.
bool before(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

void check_range(bool holds, const char* name, double value, const char* range) {
  if (!holds) fail(ErrorKind::usage, "{} must be {}, got {}", name, range, value);
}

}  // namespace

Sampler::Sampler(int vocabulary, const SamplerOptions& options) : options_(options) {
  CHECK(vocabulary > 0, "sampler: the vocabulary is empty");
  check_range(options.temperature >= 0 && std::isfinite(options.temperature), "temperature",
              options.temperature, "at least 0");
  check_range(options.top_k >= 0, "top-k", options.top_k, "at least 0");
  check_range(options.top_p > 0 && options.top_p <= 1, "top-p", options.top_p,
              "above 0 and at most 1");
  check_range(options.min_p >= 0 && options.min_p <= 1, "min-p", options.min_p, "from 0 to 1");
  check_range(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty),
              "repetition-penalty", options.repetition_penalty, "above 0");
  seen_.resize(static_cast<std::size_t>(vocabulary));
  candidates_.resize(static_cast<std::size_t>(vocabulary));
}

void Sampler::accept(std::int32_t token) {
  if (token >= 0 && static_cast<std::size_t>(token) < seen_.size())
    seen_[static_cast<std::size_t>(token)] = true;
}
void Sampler::accept(std::span<const std::int32_t> tokens) {
  for (std::int32_t token : tokens) accept(token);
}
void Sampler::reset() { std::fill(seen_.begin(), seen_.end(), false); }

float Sampler::penalised(float logit, std::size_t token) const {
  if (options_.repetition_penalty == 1.0f || !seen_[token]) return logit;
  return logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
}

std::int32_t Sampler::greedy(std::span<const float> logits) const {
  std::int32_t best = -1;
  float highest = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float logit = penalised(logits[i], i);
    if (logit > highest || (best < 0 && logit == highest))
      highest = logit, best = static_cast<std::int32_t>(i);
  }
  CHECK(best >= 0,
        "sampler: no logit is a number; the model's weights or its arithmetic are broken");
  return best;
}

void Sampler::collect_all(std::span<const float> logits) {
  kept_ = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float logit = penalised(logits[i], i);
    if (logit == logit) candidates_[kept_++] = {logit, static_cast<std::int32_t>(i), 0};
  }
}

// One pass that keeps up to 2k candidates above a rising threshold and halves them whenever they
// are full: about one comparison a token, and no exponential for tokens that are out.
void Sampler::collect_top_k(std::span<const float> logits, std::size_t k) {
  const auto begin = candidates_.begin();
  const std::size_t limit = std::min(2 * k, candidates_.size());
  float threshold = -std::numeric_limits<float>::infinity();
  kept_ = 0;
  const auto shrink = [&] {
    std::nth_element(begin, begin + static_cast<std::ptrdiff_t>(k - 1),
                     begin + static_cast<std::ptrdiff_t>(kept_), before);
    kept_ = k;
    threshold = candidates_[k - 1].logit;
  };
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float logit = penalised(logits[i], i);
    if (!(logit >= threshold)) continue;
    if (kept_ == limit) {
      shrink();
      if (!(logit >= threshold)) continue;
    }
    candidates_[kept_++] = {logit, static_cast<std::int32_t>(i), 0};
  }
  if (kept_ > k) shrink();
}

// Gives each candidate the weight exp((logit - highest) / temperature), drops the impossible, and
// returns the sum.
double Sampler::weigh() {
  float highest = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < kept_; ++i) highest = std::max(highest, candidates_[i].logit);
  CHECK(kept_ && std::isfinite(highest),
        "sampler: the highest logit is {}; the model's weights or its arithmetic are broken",
        highest);
  const double scale = 1.0 / options_.temperature;
  double total = 0;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < kept_; ++i) {
    Candidate c = candidates_[i];
    c.probability = std::exp((static_cast<double>(c.logit) - highest) * scale);
    if (c.probability > 0) candidates_[kept++] = c, total += c.probability;
  }
  kept_ = kept;
  return total;
}

// Sorts the most likely candidates, four times as many each round, until their weights reach
// `mass`: a peaked distribution over a large vocabulary is not sorted to its end.
void Sampler::sort_until(double mass) {
  const auto begin = candidates_.begin();
  double sum = 0;
  sorted_ = 0;
  for (std::size_t step = 64; sorted_ < kept_ && sum < mass; step *= 4) {
    const std::size_t end = std::min(sorted_ + step, kept_);
    const auto first = begin + static_cast<std::ptrdiff_t>(sorted_),
               last = begin + static_cast<std::ptrdiff_t>(end);
    if (end < kept_)
      std::nth_element(first, last, begin + static_cast<std::ptrdiff_t>(kept_), before);
    std::sort(first, last, before);
    for (; sorted_ < end; ++sorted_) sum += candidates_[sorted_].probability;
  }
}

// Sorts, and cuts to top-p (tokens whose more likely ones sum to less than p) and min-p, on the
// weights as they are.
void Sampler::truncate(double total) {
  const double mass =
      options_.top_p < 1.0f ? options_.top_p * total : std::numeric_limits<double>::infinity();
  sort_until(mass);
  double sum = 0;
  std::size_t kept = 0;
  while (kept < sorted_ && sum < mass) sum += candidates_[kept++].probability;
  const double least = options_.min_p * candidates_[0].probability;
  while (kept > 1 && candidates_[kept - 1].probability < least) --kept;
  kept_ = kept;
}

std::int32_t Sampler::draw(std::uint32_t position) const {
  double rest = Rng(options_.seed, position, kSite, options_.sample).uniform();
  for (std::size_t i = 0; i < kept_; ++i) {
    rest -= candidates_[i].probability;
    if (rest < 0) return candidates_[i].token;
  }
  return candidates_[kept_ - 1].token;  // the probabilities sum to one only up to rounding
}

std::int32_t Sampler::sample(std::span<const float> logits, std::uint32_t position) {
  CHECK(logits.size() == seen_.size(), "sampler: {} logits for a vocabulary of {}", logits.size(),
        seen_.size());
  kept_ = 0;
  if (options_.temperature == 0.0f || options_.top_k == 1) return greedy(logits);
  const auto k = static_cast<std::size_t>(options_.top_k);
  const bool top_k = k > 0 && k < logits.size();
  if (top_k) {
    collect_top_k(logits, k);
  } else {
    collect_all(logits);
  }
  double total = weigh();
  if (top_k || options_.top_p < 1.0f || options_.min_p > 0.0f) {
    truncate(total);
    total = 0;
    for (std::size_t i = 0; i < kept_; ++i) total += candidates_[i].probability;
  }
  for (std::size_t i = 0; i < kept_; ++i) candidates_[i].probability /= total;
  return draw(position);
}

}  // namespace supersonic::infer
