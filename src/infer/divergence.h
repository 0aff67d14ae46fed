// How far one model's next-token distribution is from another's: Kullback-Leibler divergence and
// what goes with it, token by token, as llama-perplexity --kl-divergence reports it.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace supersonic::infer {

// One position. kl: sum p_ref (log p_ref - log p), nats, >= 0.
struct TokenDivergence {
  double kl = 0, nll = 0, reference_nll = 0;  // nll: of the token that came
  double probability_change = 0;              // of that token: the model's minus the reference's
  bool same_top = false;
};
// Logits (vocab) f32 of both models, and the token that came.
TokenDivergence compare_logits(std::span<const float> logits, std::span<const float> reference,
                               std::int32_t token);

struct DivergenceSummary {
  std::int64_t tokens = 0;
  double mean = 0, median = 0, p90 = 0, p99 = 0, p999 = 0, max = 0;
  double same_top = 0;                // part of the tokens, 0 … 1
  double rms_probability_change = 0;  // 0 … 1
  double ppl = 0, reference_ppl = 0;
};
// Percentiles interpolate between ranks. Reorders `all`.
DivergenceSummary summarise(std::vector<TokenDivergence>& all);

}  // namespace supersonic::infer
