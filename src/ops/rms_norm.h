// RMS normalisation (Zhang & Sennrich 2019): y = x / sqrt(mean(x²) + eps) · w over the last dimension.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct RmsNorm {
  float eps;
  static void infer(Infer& i);  // x (rows, D), w (D) -> y (rows, D), rstd (rows) f32
  static Tensors define(const RmsNorm& a, Args in);
  static Grads backward(const RmsNorm& a, const BackwardArgs& b);
  static std::vector<Case> cases();
  static constexpr Traits traits{.cheap = true, .may_alias = {{0, 0}, {-1, -1}}};
};
OP(RmsNorm);

struct RmsNormGrad {
  float eps;
  static void infer(Infer& i);  // x, w, rstd, dy -> dx, dw
  static Tensors define(const RmsNormGrad& a, Args in);
  static constexpr Traits traits{.may_alias = {{0, 3}, {-1, -1}}};
};
OP(RmsNormGrad);

// The same where nobody asks for dw, plus what the gradient of x already is: the residual stream goes past a norm. An addition folds
// into this form.
struct RmsNormGradAdd {
  float eps;
  static void infer(Infer& i);  // x, w, rstd, dy, base -> base + dx
  static Tensors define(const RmsNormGradAdd& a, Args in);
  static constexpr Traits traits{.may_alias = {{0, 4}, {0, 3}}};
};
OP(RmsNormGradAdd);

// An addition of the gradient along x and one other value (Add::fold).
bool fold_rms_norm_grad(const FoldArgs& f, FoldNode& out);

Tensor rms_norm(const Tensor& x, const Tensor& w, float eps, Where where = Where::current());

}  // namespace supersonic
