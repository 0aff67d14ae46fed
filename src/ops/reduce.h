// Reductions over one axis, which stays with size 1. Sums accumulate in fp32 at the least (fp64 for fp64).
#pragma once
#include "ops/helpers.h"
#include "ops/map/arithmetic.h"

namespace supersonic {

Tensor max(const Tensor& x, int axis, Where where = Where::current());
Tensor mean(const Tensor& x, int axis, Where where = Where::current());

inline void infer_reduce(Infer& i, std::int64_t axis) {
  i.inputs(1);
  Shape s = i.shape(0);
  i.check(axis >= 0 && axis < s.rank, "no axis {}", axis);
  s[static_cast<int>(axis)] = 1;
  i.output(s, i.spec(0).dtype);
}

struct Sum {
  std::int64_t axis;
  static void infer(Infer& i) { infer_reduce(i, i.attrs.as<Sum>().axis); }
  static Grads backward(const Sum&, const BackwardArgs& b) { return {expand(b.dy[0], b.in[0].shape())}; }
  static std::vector<Case> cases() {
    return {{{normal({7, 96})}, Attrs::of(Sum{1})}, {{normal({2, 33, 5})}, Attrs::of(Sum{1})}, {{normal({2, 3, 33})}, Attrs::of(Sum{0})}};
  }
};
OP(Sum);

struct Max {
  std::int64_t axis;
  static void infer(Infer& i) { infer_reduce(i, i.attrs.as<Max>().axis); }
  static Grads backward(const Max&, const BackwardArgs& b) {  // ties share the gradient equally
    const Tensor at = equal(b.in[0], expand(b.out[0], b.in[0].shape()));
    const Tensor share = div(b.dy[0], sum(at, axis_of(b)));
    return {mul(at, expand(share, b.in[0].shape()))};
  }
  static int axis_of(const BackwardArgs& b) {
    for (int k = 0; k < b.in[0].rank(); ++k)
      if (b.in[0].dim(k) != b.out[0].dim(k)) return k;
    return 0;
  }
  static std::vector<Case> cases() {
    return {{{normal({7, 96})}, Attrs::of(Max{1})}, {{normal({2, 33, 5})}, Attrs::of(Max{1})}};
  }
};
OP(Max);

}  // namespace supersonic
