// The head and the loss in one: cross-entropy of x · W^T against labels, summed over the rows that have one (label >= 0) and
// scaled. Logits may be capped to ±cap by tanh (Gemma 2). The logits of all rows never exist at once: kernels go through chunks of rows and leave dx behind while they are at it.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct LinearXent {
  float cap = 0;                // 0: none
  static void infer(Infer& i);  // x (T, D), W (V, D) any format, labels (T) i32, scale (1) f32 -> loss (1) f32, dx (T, D)
  static Tensors define(const LinearXent& a, Args in);
  static Grads backward(const LinearXent& a, const BackwardArgs& b);  // W is frozen
  static std::vector<Case> cases();
};
OP(LinearXent);

// The loss alone; its gradient with respect to x costs one more product, made only when somebody differentiates.
Tensor linear_xent(const Tensor& x, const Tensor& w, const Tensor& labels, const Tensor& scale, float cap = 0,
                   Where where = Where::current());

}  // namespace supersonic
