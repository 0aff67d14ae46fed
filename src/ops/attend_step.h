// What a decoder does between a token's projections, as one operation: queries and keys turned,
// keys and values appended to their caches (ops/kv_step.h), the caches' first rows attended
// (ops/attention.h). A backend without a kernel for it runs the definition.
#pragma once
#include "ops/rope.h"

namespace supersonic {

struct AttendStep {
  Rope turn;
  float softmax_scale;
  std::int64_t context;  // rows of the caches that are attended
  // caches (S, G, D) of keys and of values, storages; q (T, H, D), k and v (T, G, D), positions
  // (T), inv_freq (R/2), at (1) i32, lo (T), hi (T) i32 -> o (T, H, D)
  static void infer(Infer& i);
  static Tensors define(const AttendStep& a, Args in);
  static constexpr Traits traits{.effect = true, .writes = 3};
};
OP(AttendStep);

}  // namespace supersonic
