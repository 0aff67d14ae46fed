// Rows of a table by index: token embeddings (any format), and picking rows of an activation.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct Embedding {
  std::int64_t dtype;           // of the result
  static void infer(Infer& i);  // table (V, D) any format, ids (T) i32 -> (T, D)
  static Tensors define(const Embedding& a, Args in);
  static std::vector<Case> cases();
};
OP(Embedding);

Tensor embedding(const Tensor& table, const Tensor& ids, DType dtype, Where where = Where::current());

}  // namespace supersonic
