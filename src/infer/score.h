// Scoring: the likelihood of given tokens, window by window, for perplexity and for comparing two models. In one pass, whose keys and
// values go through a cache where the cost of its type is what is asked.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/executor.h"
#include "models/decoder.h"

namespace supersonic::infer {

class Scorer {
 public:
  // window: tokens of one pass. with_logits: keeps all rows' logits (window, vocab) for kl().
  // kv_type: the tokens' keys and values are read back from a cache of this type; without it they stay as they were computed.
  Scorer(const models::Model& model, Executor& executor, Compute compute, std::int64_t window, bool with_logits,
         const nn::LoraSet* lora = nullptr, std::optional<models::TensorType> kv_type = {});
  // ids (<= window). labels[i]: the token that position i is scored on, or a negative number. Returns the sum of
  // negative log-likelihoods in nats.
  double nll(std::span<const std::int32_t> ids, std::span<const std::int32_t> labels);
  // After a call with with_logits: row i's logits.
  std::span<const float> logits(std::int64_t row) const;

 private:
  const models::Model& model_;
  std::int64_t window_;
  bool with_logits_;
  models::KvCache cache_;
  StorageRef at_;  // (1) zero
  StorageRef ids_, positions_, lo_, hi_, window_lo_, labels_, scale_;
  Program program_;
};

struct PerplexityOptions {
  std::int64_t context = 512;
  // llamacpp: chunks of `context` with BOS first where the model adds one, the second half of each scored.
  // hf: chunks of `context`, every token but a chunk's first scored.
  bool llamacpp = true;
  std::int32_t bos = -1;  // >= 0: written over each chunk's first token (llamacpp)
};
// Chunks and which of their positions count: the plan of a perplexity run over n tokens.
struct Window {
  std::int64_t begin, size, first_scored;  // positions [first_scored, size - 1) predict their successor
};
std::vector<Window> perplexity_windows(std::int64_t n, const PerplexityOptions& options);

}  // namespace supersonic::infer
