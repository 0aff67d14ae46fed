// Writes new keys or values into a cache: cache[at[0] + i] = x[i], rounded to the cache's scalar type or encoded in its format.
// The rows beyond what is valid are overwritten later.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct KvAppend {
  static void infer(Infer& i) {  // cache (S, G, D) a storage, dense or in a format, x (T, G, D), at (1) i32
    i.inputs(3);
    i.check(i.shape(0).rank == 3 && i.shape(1).rank == 3 && i.shape(0)[1] == i.shape(1)[1] && i.shape(0)[2] == i.shape(1)[2] &&
                i.shape(1)[0] <= i.shape(0)[0],
            "cache (S, G, D) takes rows (T, G, D)");
    i.check(!i.spec(1).format, "rows arrive as numbers");
    i.check(i.shape(2) == Shape{1}, "at must be (1)");
  }
  static constexpr Traits traits{.effect = true};
};
OP(KvAppend);

void kv_append(const Tensor& cache, const Tensor& x, const Tensor& at, Where where = Where::current());

}  // namespace supersonic
