// A mixture of experts from five operations. Each of T tokens chooses k of E experts (top_k); the N
// = T·k rows are sorted by expert (group_rows), gathered (dispatch), multiplied by their expert's
// matrix (grouped_linear) and added up with their weights (combine). Every shape is known when
// recording: only where one expert's rows end depends on data. Rows keep the order of tokens within
// an expert, so results do not depend on threads.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

// The k largest values of each row, largest first, and where they stand; of equal ones the first.
struct TopK {
  std::int64_t k;
  static void infer(Infer& i);  // x (T, E) -> values (T, k), indices (T, k) i32
  static Tensors define(const TopK& a, Args in);
  static Grads backward(const TopK& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(TopK);

struct TopKGrad {
  std::int64_t width;
  static void infer(Infer& i);  // indices (T, k) i32, dy (T, k) -> dx (T, width)
  static Tensors define(const TopKGrad& a, Args in);
};
OP(TopKGrad);

// Sorts N entries by expert, stable. order[i]: which entry became row i; place: the inverse;
// begin[e]: expert e's first row.
struct GroupRows {
  std::int64_t experts;
  static void infer(Infer& i);  // ids (N) i32, each in [0, experts) -> order (N), place (N), begin
                                // (experts + 1), sorted ids (N), all i32
  static Tensors define(const GroupRows& a, Args in);
  static std::vector<Case> cases();
};
OP(GroupRows);

// y[i] = x[order[i] / k], with N = T·k.
struct Dispatch {
  static void infer(Infer& i);  // x (T, D), order (N) i32, place (N) i32 -> y (N, D)
  static Tensors define(const Dispatch& a, Args in);
  static Grads backward(const Dispatch& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(Dispatch);

// y[t] = Σ_j weights[t, j] · x[place[t k + j]].
struct Combine {
  static void infer(
      Infer& i);  // x (N, D), weights (T, k), order (N) i32, place (N) i32 -> y (T, D)
  static Tensors define(const Combine& a, Args in);
  static Grads backward(const Combine& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(Combine);

struct CombineGrad {
  static void infer(
      Infer& i);  // x (N, D), weights (T, k), order, place, dy (T, D) -> dx (N, D), dweights (T, k)
  static Tensors define(const CombineGrad& a, Args in);
};
OP(CombineGrad);

// Rows begin[e] … begin[e + 1] - 1 of x times matrix e of W, whose rows lie one below the other: W
// is (E·R, C), a matrix (R, C) as a linear layer keeps it. trans: by the matrix as it lies instead,
// which is the gradient of x.
struct GroupedLinear {
  std::int32_t trans, sensitive;  // sensitive: as a term of Gemm
  static void infer(Infer& i);  // x (N, C), W (E·R, C) any format, begin (E + 1) i32 -> y (N, R);
                                // trans: (N, R) -> (N, C)
  static Tensors define(const GroupedLinear& a, Args in);
  static Grads backward(const GroupedLinear& a, const BackwardArgs& b);
  static std::vector<Case> cases();
};
OP(GroupedLinear);

// The gradient of W: matrix e is dy[rows]^T x[rows] over rows begin[e] … begin[e + 1] - 1, and zero
// where an expert got none.
struct GroupedLinearGrad {
  std::int32_t dtype;           // of the result
  static void infer(Infer& i);  // dy (N, R), x (N, C), begin (E + 1) i32 -> dw (E·R, C)
  static Tensors define(const GroupedLinearGrad& a, Args in);
  static std::vector<Case> cases();
};
OP(GroupedLinearGrad);

// target (E·R, C), a storage, += the same: experts without rows are not touched.
struct GroupedLinearGradAccumulate {
  static void infer(Infer& i);  // target, dy, x, begin
  static Tensors define(const GroupedLinearGradAccumulate& a, Args in);
  static constexpr Traits traits{.effect = true};
};
OP(GroupedLinearGradAccumulate);
// Accumulate of that gradient, when nobody else reads it.
bool fold_grouped_linear_grad(const FoldArgs& f, FoldNode& out);

struct Chosen {
  Tensor values, indices;  // (T, k), (T, k) i32
};
Chosen top_k(const Tensor& x, std::int64_t k, Where where = Where::current());

struct Groups {
  Tensor order, place, begin, ids;
};
Groups group_rows(const Tensor& indices, std::int64_t experts,
                  Where where = Where::current());  // indices of any shape
Tensor dispatch(const Tensor& x, const Groups& g, Where where = Where::current());
Tensor combine(const Tensor& x, const Tensor& weights, const Groups& g,
               Where where = Where::current());
Tensor grouped_linear(const Tensor& x, const Tensor& w, const Groups& g, bool sensitive = false,
                      Where where = Where::current());

}  // namespace supersonic
