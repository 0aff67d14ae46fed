// The elementwise work of a hand-written training step, as plain loops: residual sums, SwiGLU and
// its gradient. Arithmetic is fp32; all arrays of a call share one type, f32 or bf16. Bound by
// bandwidth.
#pragma once
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu {

struct ElementwiseKernels {
  // y = a + b; y may be a or b.
  void (*add)(Pool&, const void* a, const void* b, void* y, DType type, std::int64_t n);
  // y = gate * sigmoid(gate) * up
  void (*swiglu)(Pool&, const void* gate, const void* up, void* y, DType type, std::int64_t n);
  // dy: the gradient of y. Gives y once more, and the gradients of gate and up; each result may be
  // one of the operands.
  void (*swiglu_backward)(Pool&, const void* gate, const void* up, const void* dy, void* y,
                          void* dgate, void* dup, DType type, std::int64_t n);
};
const ElementwiseKernels& elementwise_kernels(Isa level = isa());

}  // namespace supersonic::cpu
