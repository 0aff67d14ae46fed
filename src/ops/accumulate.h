// Effects on a storage (or a contiguous view of one): target += x, target = x, target = 0.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

void accumulate(const Tensor& target, const Tensor& x, Where where = Where::current());
void assign(const Tensor& target, const Tensor& x, Where where = Where::current());
void clear(const Tensor& target, Where where = Where::current());

struct Accumulate {
  static void infer(Infer& i) {
    i.inputs(2);
    i.check(i.shape(0) == i.shape(1), "target and value have shapes {} and {}", to_string(i.shape(0)), to_string(i.shape(1)));
  }
  static bool fold(const FoldArgs& f, FoldNode& out);  // a product or a gradient + accumulate: ops/gemm.cpp
  static constexpr Traits traits{.effect = true};
};
OP(Accumulate);

struct Assign {
  static void infer(Infer& i) {
    i.inputs(2);
    i.check(i.shape(0) == i.shape(1), "target and value have shapes {} and {}", to_string(i.shape(0)), to_string(i.shape(1)));
  }
  static constexpr Traits traits{.effect = true};
};
OP(Assign);

// No array of zeros is made for it.
struct Clear {
  static void infer(Infer& i) { i.inputs(1); }
  static Tensors define(const Clear& a, Args in);
  static constexpr Traits traits{.effect = true};
};
OP(Clear);

}  // namespace supersonic
