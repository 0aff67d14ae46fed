// Sampler: one row of logits -> one token, on the CPU (ops/sampling.h has the meaning, which
// sampling inside of a step shares). All buffers are made by the constructor; sample() allocates
// nothing.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "ops/sampling.h"

namespace supersonic::infer {

struct SamplerOptions {
  float temperature = 0.7f;         // 0: the most likely token
  int top_k = 40;                   // 0: off
  float top_p = 0.95f;              // 1: off
  float min_p = 0.05f;              // 0: off; relative to the most likely token
  float repetition_penalty = 1.0f;  // 1: off; applies to every token seen, prompt included
  std::uint64_t seed = 0;
  std::uint32_t sample = 0;  // which of several continuations of one prompt
};

class Sampler {
 public:
  // Throws Error(usage) when an option is out of range.
  Sampler(int vocabulary, const SamplerOptions& options);

  // Marks tokens as seen, for the repetition penalty.
  void accept(std::int32_t token);
  void accept(std::span<const std::int32_t> tokens);
  void reset();

  // logits (vocabulary) f32 -> token. `position` is the index of the new token in its sequence. NaN
  // logits are never chosen; throws Error(failure) when no logit is a number.
  std::int32_t sample(std::span<const float> logits, std::uint32_t position);

  // What the last draw chose from, by id; empty after a greedy choice.
  std::span<const sampling::Candidate> candidates() const { return {candidates_.data(), kept_}; }

  // The same choice elsewhere: the settings, and a byte for each token that is not 0 once it was
  // seen.
  const Sampling& settings() const { return settings_; }
  std::span<const std::uint8_t> seen() const { return seen_; }

 private:
  Sampling settings_;
  std::vector<std::uint8_t> seen_;
  std::vector<sampling::Candidate> candidates_;
  std::size_t kept_ = 0;
};

}  // namespace supersonic::infer
