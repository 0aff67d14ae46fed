#include "infer/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace supersonic::infer {
namespace {

constexpr double kLog2E = 1.4426950408889634;

void check_range(bool holds, const char* name, double value, const char* range) {
  if (!holds) fail(ErrorKind::usage, "{} must be {}, got {}", name, range, value);
}

Sampling settings_of(int vocabulary, const SamplerOptions& o) {
  CHECK(vocabulary > 0, "sampler: the vocabulary is empty");
  CHECK(vocabulary <= sampling::kMostTokens, "sampler: {} tokens are too many, {} are possible",
        vocabulary, sampling::kMostTokens);
  check_range(o.temperature >= 0 && std::isfinite(o.temperature), "temperature", o.temperature,
              "at least 0");
  check_range(o.top_k >= 0, "top-k", o.top_k, "at least 0");
  check_range(o.top_p > 0 && o.top_p <= 1, "top-p", o.top_p, "above 0 and at most 1");
  check_range(o.min_p >= 0 && o.min_p <= 1, "min-p", o.min_p, "from 0 to 1");
  check_range(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty), "repetition-penalty",
              o.repetition_penalty, "above 0");
  Sampling s;
  s.halvings = o.temperature > 0 ? kLog2E / static_cast<double>(o.temperature) : 0;
  s.seed = o.seed, s.sample = o.sample;
  s.least = static_cast<std::uint64_t>(
      std::ceil(static_cast<double>(o.min_p) * static_cast<double>(sampling::kMostLikely)));
  s.top_p = o.top_p, s.penalty = o.repetition_penalty, s.top_k = o.top_k;
  s.vocabulary = vocabulary;
  return s;
}

}  // namespace

Sampler::Sampler(int vocabulary, const SamplerOptions& options)
    : settings_(settings_of(vocabulary, options)),
      seen_(static_cast<std::size_t>(vocabulary)),
      candidates_(static_cast<std::size_t>(vocabulary)) {}

void Sampler::accept(std::int32_t token) {
  if (token >= 0 && static_cast<std::size_t>(token) < seen_.size())
    seen_[static_cast<std::size_t>(token)] = 1;
}
void Sampler::accept(std::span<const std::int32_t> tokens) {
  for (std::int32_t token : tokens) accept(token);
}
void Sampler::reset() { std::fill(seen_.begin(), seen_.end(), 0); }

std::int32_t Sampler::sample(std::span<const float> logits, std::uint32_t position) {
  CHECK(logits.size() == seen_.size(), "sampler: {} logits for a vocabulary of {}", logits.size(),
        seen_.size());
  kept_ = 0;
  const sampling::Choice c =
      sampling::choose(settings_, logits, seen_.data(), position, candidates_);
  kept_ = c.kept;
  return c.token;
}

}  // namespace supersonic::infer
