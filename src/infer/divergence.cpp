#include "infer/divergence.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace supersonic::infer {
namespace {

struct Normaliser {
  float top = 0;
  std::size_t argmax = 0;
  double log_sum = 0;  // log sum exp(logit - top)
  double log_p(float logit) const { return static_cast<double>(logit) - top - log_sum; }
};

Normaliser normalise(std::span<const float> logits) {
  Normaliser n;
  n.argmax =
      static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  n.top = logits[n.argmax];
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - n.top);
  n.log_sum = std::log(sum);
  return n;
}

double percentile(const std::vector<TokenDivergence>& sorted, double part) {
  const double at = part * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  const double weight = at - static_cast<double>(low);
  return (1 - weight) * sorted[low].kl + weight * sorted[high].kl;
}

}  // namespace

TokenDivergence compare_logits(std::span<const float> logits, std::span<const float> reference,
                               std::int32_t token) {
  CHECK(logits.size() == reference.size(), "vocabularies of {} and {} tokens cannot be compared",
        logits.size(), reference.size());
  CHECK(token >= 0 && static_cast<std::size_t>(token) < logits.size(),
        "token {} is not in a vocabulary of {}", token, logits.size());
  const Normaliser q = normalise(logits), p = normalise(reference);
  TokenDivergence d;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double log_p = p.log_p(reference[i]);
    const float probability = std::exp(static_cast<float>(log_p));
    if (probability > 0) d.kl += static_cast<double>(probability) * (log_p - q.log_p(logits[i]));
  }
  d.kl = std::max(0.0, d.kl);
  d.nll = -q.log_p(logits[static_cast<std::size_t>(token)]);
  d.reference_nll = -p.log_p(reference[static_cast<std::size_t>(token)]);
  d.probability_change = std::exp(-d.nll) - std::exp(-d.reference_nll);
  d.same_top = q.argmax == p.argmax;
  return d;
}

DivergenceSummary summarise(std::vector<TokenDivergence>& all) {
  CHECK(!all.empty(), "nothing was compared");
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.kl < b.kl; });
  const auto n = static_cast<double>(all.size());
  DivergenceSummary s;
  double nll = 0, reference_nll = 0, squares = 0;
  for (const auto& d : all) {
    s.mean += d.kl / n;
    s.same_top += d.same_top / n;
    squares += d.probability_change * d.probability_change;
    nll += d.nll, reference_nll += d.reference_nll;
  }
  s.tokens = static_cast<std::int64_t>(all.size());
  s.median = percentile(all, 0.5), s.p90 = percentile(all, 0.9), s.p99 = percentile(all, 0.99),
  s.p999 = percentile(all, 0.999);
  s.max = all.back().kl;
  s.rms_probability_change = std::sqrt(squares / n);
  s.ppl = std::exp(nll / n), s.reference_ppl = std::exp(reference_nll / n);
  return s;
}

}  // namespace supersonic::infer
