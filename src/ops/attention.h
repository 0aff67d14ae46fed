// Scaled dot-product attention with grouped queries. Query row i attends the keys [lo[i], hi[i]] (inclusive; none when hi < lo):
// one mechanism for causal, packed, sliding-window and cached attention. Scores may be capped to ±cap by tanh (Gemma 2), and each head
// may have a sink: a score of its own that takes part in the softmax and gives no value (gpt-oss). Forward keeps the log-sum-exp, as FlashAttention does.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct Attention {
  float softmax_scale;
  float cap = 0;                // 0: none
  static void infer(Infer& i);  // q (T, H, D), k (S, G, D), v (S, G, D), lo (T) i32, hi (T) i32 [, sinks (H) f32] -> o (T, H, D), lse (T, H) f32
  static Tensors define(const Attention& a, Args in);
  static Grads backward(const Attention& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(Attention);

struct AttentionGrad {
  float softmax_scale;
  float cap = 0;
  static void infer(Infer& i);  // q, k, v, lo, hi, o, lse, do [, sinks] -> dq, dk, dv
  static Tensors define(const AttentionGrad& a, Args in);
};
OP(AttentionGrad);

// sinks: empty where there are none.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lo, const Tensor& hi, float scale, float cap = 0,
                 const Tensor& sinks = {}, Where where = Where::current());

}  // namespace supersonic
