#include "ops/batch_matmul.h"

#include "ops/map/arithmetic.h"

namespace supersonic {

Tensor batch_matmul(const Tensor& a, const Tensor& b, Where where) {
  Shape sa = a.shape(), sb = b.shape();
  CHECK(sa.rank == sb.rank, "batch_matmul: ranks {} and {} differ", sa.rank, sb.rank);
  for (int k = 0; k < sa.rank - 2; ++k) sa[k] = sb[k] = std::max(sa[k], sb[k]);
  return record1(BatchMatmul{}, {expand(a, sa, where), expand(b, sb, where)}, where);
}

Grads BatchMatmul::backward(const BatchMatmul&, const BackwardArgs& b) {
  return {b.need[0] ? batch_matmul(b.dy[0], transpose_last(b.in[1])) : Tensor(),
          b.need[1] ? cast(batch_matmul(transpose_last(b.in[0]), b.dy[0]), b.in[1].dtype()) : Tensor()};
}

}  // namespace supersonic
