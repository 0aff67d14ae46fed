// Rotary position embedding (Su et al. 2021) over heads: each pair (a, b) of a head's D values turns by position · inv_freq.
// Pairs are (i, i + R/2) as Hugging Face stores q and k, or (2i, 2i + 1) as GGUF's llama architecture does. Only the first R values
// turn, R being twice the number of frequencies; the others stay as they are.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct Rope {
  std::int32_t interleaved;
  std::int32_t inverse;      // turns back: the backward
  float magnitude = 1;       // YaRN's attention factor
  static void infer(Infer& i);  // x (T, H, D), positions (T) i32, inv_freq (R/2) f32, R <= D -> y (T, H, D)
  static Tensors define(const Rope& a, Args in);
  static Grads backward(const Rope& a, const BackwardArgs& b);
  static std::vector<Case> cases();
  static constexpr Traits traits{.may_alias = {{0, 0}, {-1, -1}}};
};
OP(Rope);

Tensor rope(const Tensor& x, const Tensor& positions, const Tensor& inv_freq, bool interleaved, float magnitude = 1,
            Where where = Where::current());

}  // namespace supersonic
