// Gemm: y (M,N) = alpha · Σ_i X_i · W_i, accumulated in fp32 over all terms and rounded once. A term's X is stored (M,K), or (K,M) when
// transposed; its W is stored (N,K) as a linear layer keeps it, or (K,N) when transposed, in any format. LoRA, and the gradient
// of an input that several layers read, are one product with several terms: additions of products fold into this form. So does
// the scale of a product of floats into alpha; products of quantized weights leave it to the chain that follows them anyway.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

constexpr int kMaxGemmTerms = 7;

struct Gemm {
  std::int32_t dtype;    // of the result
  std::uint16_t trans_x, trans_w;  // bit i: term i's operand is stored transposed
  std::uint16_t sensitive = 0;      // bit i: term i stays out of int8, but for the few rows of a decoded token
  float alpha = 1;
  static void infer(Infer& i);     // x0, w0, x1, w1, …
  static Tensors define(const Gemm& a, Args in);
  static Grads backward(const Gemm& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(Gemm);

// target (M,N), a storage, += the same sum.
struct GemmAccumulate {
  Gemm gemm;
  static void infer(Infer& i);  // target, x0, w0, …
  static Tensors define(const GemmAccumulate& a, Args in);
  static constexpr Traits traits{.effect = true};
};
OP(GemmAccumulate);

struct GemmTermArgs {
  Tensor x, w;
  bool trans_x = false, trans_w = false, sensitive = false;
};
Tensor gemm(std::span<const GemmTermArgs> terms, DType dtype, Where where = Where::current(), float alpha = 1);
// x (M,K) · w (N,K)^T -> (M,N) in x's dtype (or `dtype`)
Tensor linear(const Tensor& x, const Tensor& w, Where where = Where::current());
Tensor linear(const Tensor& x, const Tensor& w, DType dtype, Where where = Where::current());

}  // namespace supersonic
