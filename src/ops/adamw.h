// AdamW (Loshchilov & Hutter 2019) over flat arrays, and the norm that clips it.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

// What changes from step to step, written by the host before a run: hyper = {lr, step (from 1), max_norm (0: no clipping), 0}.
// Parameters in bf16 are rounded stochastically (core/rounding.h), the draws keyed by seed, step and element, so that small steps add
// up in expectation and a resumed run rounds as the undisturbed one.
struct AdamW {
  float beta1, beta2, eps, weight_decay;
  std::uint64_t seed = 0;
  static void infer(Infer& i);  // p (n) f32 or bf16, m (n) f32, v (n) f32: written; g (n) f32, hyper (4) f32, sum of squares of g (1) f32
  static constexpr Traits traits{.effect = true, .writes = 0b111};
};
OP(AdamW);

// The same with block-wise 8-bit moments (Dettmers et al. 2022): m, v (n) u8 with one fp32 maximum per 256.
struct AdamW8bit {
  float beta1, beta2, eps, weight_decay;
  std::uint64_t seed = 0;
  static void infer(Infer& i);  // p, m (n) u8, v (n) u8, m_max, v_max (⌈n/256⌉) f32: written; g, hyper, squares
  static constexpr Traits traits{.effect = true, .writes = 0b11111};
};
OP(AdamW8bit);

struct SumSquares {
  static void infer(Infer& i);  // x (n) -> (1) f32
  static Tensors define(const SumSquares& a, Args in);
  static Grads backward(const SumSquares& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(SumSquares);

Tensor sum_squares(const Tensor& x, Where where = Where::current());

}  // namespace supersonic
