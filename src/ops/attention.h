// Scaled dot-product attention with grouped queries. Query row i attends the keys [lo[i], hi[i]] (inclusive; none when hi < lo):
// one mechanism for causal, packed, sliding-window and cached attention. Forward keeps the log-sum-exp, as FlashAttention does.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct Attention {
  float softmax_scale;
  static void infer(Infer& i);  // q (T, H, D), k (S, G, D), v (S, G, D), lo (T) i32, hi (T) i32 -> o (T, H, D), lse (T, H) f32
  static Tensors define(const Attention& a, Args in);
  static Grads backward(const Attention& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(Attention);

struct AttentionGrad {
  float softmax_scale;
  static void infer(Infer& i);  // q, k, v, lo, hi, o, lse, do -> dq, dk, dv
  static Tensors define(const AttentionGrad& a, Args in);
};
OP(AttentionGrad);

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lo, const Tensor& hi, float scale,
                 Where where = Where::current());

}  // namespace supersonic
