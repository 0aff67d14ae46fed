// What attention needs of new tokens, as one operation: queries and keys turned (ops/rope.h), keys and values appended to their
// caches (ops/kv_append.h). A backend without a kernel for it runs the definition.
#pragma once
#include "ops/rope.h"

namespace supersonic {

struct KvStep {
  Rope turn;
  // caches (S, G, D) of keys and of values, storages; q (T, H, D), k and v (T, G, D), positions (T), inv_freq (R/2), at (1) i32
  // -> q turned (T, H, D)
  static void infer(Infer& i);
  static Tensors define(const KvStep& a, Args in);
  static constexpr Traits traits{.effect = true, .writes = 3};
};
OP(KvStep);

}  // namespace supersonic
