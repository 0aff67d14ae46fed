// The end of a decoded token's step: a token is chosen from its logits (ops/sampling.h) and becomes
// the next step's input, so that a step can be run after another without the host in between.
#pragma once
#include "ops/helpers.h"
#include "ops/sampling.h"

namespace supersonic {

struct SampleStep {
  std::int64_t window;
  // step (kStepFeeds) i32, seen (V) u8 and chosen (N) i32, storages; logits (1, V) f32; settings
  // (kSamplingWords) i32, the words of a Sampling. With row = step's `at`: chosen[row % N] is the
  // token, seen[token] is 1, and step is that of the token at row + 1.
  static void infer(Infer& i);
  static constexpr Traits traits{.effect = true, .writes = 7};
};
OP(SampleStep);

void sample_step(const Tensor& step, const Tensor& seen, const Tensor& chosen, const Tensor& logits,
                 const Tensor& settings, std::int64_t window, Where where = Where::current());

}  // namespace supersonic
