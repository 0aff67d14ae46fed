// The head and the loss in one: cross-entropy of x · W^T against labels, summed over the rows that have one (label >= 0) and
// scaled. Logits may be capped to ±cap by tanh (Gemma 2). The logits of all rows never exist at once: kernels go through chunks of rows and leave dx behind while they are at it.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct LinearXent {
  float cap = 0;                // 0: none
  // x (T, D), W (V, D) any format, labels (T) i32, scale (1) f32 -> loss (1) f32, dx (T, D), and for W's gradient, of each
  // row with a label, else 0: lse (T) f32, the logarithm of its sum of exponentials, and nll (T) f32, its negative log-likelihood
  static void infer(Infer& i);
  static Tensors define(const LinearXent& a, Args in);
  static Grads backward(const LinearXent& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(LinearXent);

// The gradient of W, from logits that are computed again in chunks. Where p, the label's probability, is nearly 1, p - 1 comes from
// nll: the last bit of an fp32 lse would be visible in it.
struct LinearXentWeightGrad {
  float cap = 0;
  static void infer(Infer& i);  // x, W (a matrix of floats), labels, scale, dloss (1), lse (T) f32, nll (T) f32 -> dW (V, D) f32
  static Tensors define(const LinearXentWeightGrad& a, Args in);
  static std::vector<Case> cases();
};
OP(LinearXentWeightGrad);

// target (V, D) f32, a storage, += the same.
struct LinearXentWeightGradAccumulate {
  LinearXentWeightGrad grad;
  static void infer(Infer& i);  // target, x, W, labels, scale, dloss, lse, nll
  static Tensors define(const LinearXentWeightGradAccumulate& a, Args in);
  static constexpr Traits traits{.effect = true};
};
OP(LinearXentWeightGradAccumulate);

// An accumulation of it (Accumulate::fold).
bool fold_linear_xent_weight_grad(const FoldArgs& f, FoldNode& out);

// The loss alone; its gradient with respect to x costs one more product, made only when somebody differentiates.
Tensor linear_xent(const Tensor& x, const Tensor& w, const Tensor& labels, const Tensor& scale, float cap = 0,
                   Where where = Where::current());

}  // namespace supersonic
