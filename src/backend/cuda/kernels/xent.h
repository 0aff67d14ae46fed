// The head and the loss in one pass over the vocabulary (ops/linear_xent.h), as attention goes over
// its keys: a slice of words is decoded once, multiplied with all rows of a chunk, its logits
// become exponentials relative to the largest logit of each row so far, and those times the same
// slice are added to sums that first shrink as the maximum grows. The division by the total waits
// for the end, and so does the label's own part, (p - 1) of its word: it is left out of the sums,
// since where p is nearly 1 the difference of two rounded numbers would be noise.
//
// Rows without a label are left out before any arithmetic: a list of the others is made on the
// device, chunks are gathered by it, and kernels of chunks past its end return at once, since the
// host does not know its length. Workspace: rows and sums of a chunk, its logits for a slice, and
// the slice. Losses sum in double, in a fixed order.
#pragma once
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels/fault.h"
#include "backend/cuda/kernels/gemm.h"

namespace supersonic::cuda {

struct LinearXentCall {
  std::int64_t rows = 0;                 // T
  MatrixRef x;                           // (T, D) f32 or bf16
  MatrixRef w;                           // (V, D)
  const Format* format = nullptr;        // of w; null: dense
  const std::int32_t* labels = nullptr;  // (T), below 0: none
  const float* scale = nullptr;          // (1)
  float* loss = nullptr;                 // (1), or null
  void* dx = nullptr;                    // (T, D) as x, or null
  // (T) or null, 0 for rows without a label: the logarithm of the sum of exponentials, and the row's loss
  float *lse = nullptr, *nll = nullptr;
  Compute compute = Compute::fp32;
  FaultSink faults;
};

std::size_t linear_xent_workspace(const LinearXentCall& call);  // shapes and types alone
void linear_xent(const LinearXentCall& call, void* workspace, cudaStream_t stream);

// The gradient of a head that is trained, from what linear_xent() leaves behind. Logits are computed
// again, slice by slice, and become the gradient along them in place; that, transposed, times the
// chunk's rows is added to the slice's rows of dW. Rows past the end of the list are zeros there.
struct LinearXentWeightCall {
  std::int64_t rows = 0;                 // T
  MatrixRef x;                           // (T, D) f32 or bf16
  MatrixRef w;                           // (V, D) f32, bf16 or f16
  const std::int32_t* labels = nullptr;  // (T)
  const float* scale = nullptr;          // (1)
  const float* dloss = nullptr;          // (1)
  const float *lse = nullptr, *nll = nullptr;  // (T)
  float* dw = nullptr;                   // (V, D), added to
  Compute compute = Compute::fp32;
  FaultSink faults;
};

std::size_t linear_xent_weight_workspace(const LinearXentWeightCall& call);
void linear_xent_weight(const LinearXentWeightCall& call, void* workspace, cudaStream_t stream);

}  // namespace supersonic::cuda
