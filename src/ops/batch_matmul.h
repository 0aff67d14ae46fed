// Batched matrix product: a (..., M, K) · b (..., K, N) -> (..., M, N), equal leading dimensions. The meaning of every other
// product; kernels for it need not be fast.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

Tensor batch_matmul(const Tensor& a, const Tensor& b, Where where = Where::current());  // leading dimensions broadcast

struct BatchMatmul {
  static void infer(Infer& i) {
    i.inputs(2);
    const Shape &a = i.shape(0), &b = i.shape(1);
    i.check(a.rank >= 2 && a.rank == b.rank && a[-1] == b[-2], "shapes {} and {} do not multiply", to_string(a), to_string(b));
    for (int k = 0; k < a.rank - 2; ++k) i.check(a[k] == b[k], "leading dimensions differ");
    Shape s = a;
    s[-1] = b[-1];
    i.output(s, i.spec(0).dtype);
  }
  static Grads backward(const BatchMatmul&, const BackwardArgs& b);
  static std::vector<Case> cases() {
    return {{{normal({5, 7}), normal({7, 3})}, {}}, {{normal({2, 3, 33, 17}), normal({2, 3, 17, 9})}, {}}};
  }
};
OP(BatchMatmul);

}  // namespace supersonic
