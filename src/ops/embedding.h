// Rows of a table by index: token embeddings (any format), and picking rows of an activation.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct Embedding {
  std::int64_t dtype;           // of the result
  static void infer(Infer& i);  // table (V, D) any format, ids (T) i32 -> (T, D)
  static Tensors define(const Embedding& a, Args in);
  static Grads backward(const Embedding& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(Embedding);

// The gradient of the table: each row the sum of dy's rows that read it, in the order of ids.
struct EmbeddingGrad {
  std::int64_t rows;            // V
  static void infer(Infer& i);  // ids (T) i32, dy (T, D) -> (V, D) f32
  static Tensors define(const EmbeddingGrad& a, Args in);
  static std::vector<Case> cases();
};
OP(EmbeddingGrad);

// target (V, D) f32, a storage, += the same: no table of zeros is made and added.
struct EmbeddingGradAccumulate {
  static void infer(Infer& i);  // target, ids, dy
  static Tensors define(const EmbeddingGradAccumulate& a, Args in);
  static constexpr Traits traits{.effect = true};
};
OP(EmbeddingGradAccumulate);

// An accumulation of the gradient of a table (Accumulate::fold).
bool fold_embedding_grad(const FoldArgs& f, FoldNode& out);

Tensor embedding(const Tensor& table, const Tensor& ids, DType dtype, Where where = Where::current());

}  // namespace supersonic
