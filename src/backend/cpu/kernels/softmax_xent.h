// Row kernels over logits: softmax cross-entropy with its gradient in place, log-sum-exp, argmax.
// Rows are split over the threads; a result never depends on their number.
#pragma once
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu {

constexpr std::int32_t kIgnoredLabel = -100;

// loss[i] = lse(logits[i]) - logits[i][label[i]]. With gradient, row i of the logits becomes
// (softmax(logits[i]) - onehot(label[i])) * scale * row_scale[i]. Rows labelled kIgnoredLabel get
// loss 0 and gradient 0.
struct SoftmaxXent {
  void* logits = nullptr;  // (rows, vocab), row stride `stride` elements
  const std::int32_t* labels =
      nullptr;                       // (rows), kIgnoredLabel or [0, vocab); else an Error is thrown
  const float* row_scale = nullptr;  // (rows), or null for 1
  float scale = 1;
  float cap = 0;          // logits become cap * tanh(logit / cap) first, in place; 0: they stay
  float* loss = nullptr;  // (rows), or null
  float* lse = nullptr;   // (rows), or null
  // Of an earlier call, or null: the gradient comes from them, and nothing but it is written.
  const float *known_lse = nullptr, *known_loss = nullptr;
  std::int64_t rows = 0, vocab = 0, stride = 0;
  bool gradient = true;     // false: the logits are only read, or capped
  DType type = DType::f32;  // f32 or bf16
};

void check(const SoftmaxXent& a);  // throws Error; the kernels call it

struct RowReduction {
  const void* x = nullptr;  // (rows, n), row stride `stride` elements
  std::int64_t rows = 0, n = 0, stride = 0;
  DType type = DType::f32;  // f32 or bf16
};

struct SoftmaxXentKernels {
  void (*xent)(Pool&, const SoftmaxXent&);
  void (*log_sum_exp)(Pool&, const RowReduction&, float* out);  // out (rows)
  void (*argmax)(Pool&, const RowReduction&,
                 std::int32_t* out);  // the first of equal maxima; NaN never wins; -1: none
};
const SoftmaxXentKernels& softmax_xent_kernels(Isa level = isa());

}  // namespace supersonic::cpu
