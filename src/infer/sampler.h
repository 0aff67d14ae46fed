// Sampler: one row of logits -> one token. The order is that of transformers, so that a model's
// generation_config.json means the same here: repetition penalty, temperature, top-k, top-p, min-p,
// then one draw. A draw depends on (seed, position, sample) alone: same seed, same text. Ties fall
// to the lower token id. All buffers are made by the constructor; sample() allocates nothing.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

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
  struct Candidate {
    float logit;  // after the repetition penalty, before temperature
    std::int32_t token;
    double probability;  // of the truncated, renormalised distribution
  };

  // Throws Error(usage) when an option is out of range.
  Sampler(int vocabulary, const SamplerOptions& options);

  // Marks tokens as seen, for the repetition penalty.
  void accept(std::int32_t token);
  void accept(std::span<const std::int32_t> tokens);
  void reset();

  // logits (vocabulary) f32 -> token. `position` is the index of the new token in its sequence. NaN
  // logits are never chosen; throws Error(failure) when no logit is a number.
  std::int32_t sample(std::span<const float> logits, std::uint32_t position);

  // What the last draw chose from: most likely first where top-k, top-p or min-p is on, else by id;
  // empty after a greedy choice.
  std::span<const Candidate> candidates() const { return {candidates_.data(), kept_}; }

 private:
  float penalised(float logit, std::size_t token) const;
  std::int32_t greedy(std::span<const float> logits) const;
  void collect_all(std::span<const float> logits);
  void collect_top_k(std::span<const float> logits, std::size_t k);
  double weigh();
  void sort_until(double mass);
  void truncate(double total);
  std::int32_t draw(std::uint32_t position) const;

  SamplerOptions options_;
  std::vector<std::uint8_t> seen_;
  std::vector<Candidate> candidates_;
  std::size_t kept_ = 0, sorted_ = 0;
};

}  // namespace supersonic::infer
