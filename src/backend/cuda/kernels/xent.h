// The head and the loss in one pass over chunks of rows (ops/linear_xent.h). Rows without a label
// are left out before any arithmetic: a list of the others is made on the device, chunks are
// gathered by it, and kernels of chunks past its end return at once, since the host does not know
// its length. The logits of one chunk, fp32, are all that exists; their gradient takes their place
// (as bf16, in the first half of each row, where the tensor cores will read it). Losses sum in
// double, in a fixed order.
#pragma once
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels/fault.h"
#include "backend/cuda/kernels/gemm.h"

namespace supersonic::cuda {

struct LinearXentCall {
  std::int64_t rows = 0;                 // T
  MatrixRef x;                           // (T, D) f32 or bf16
  MatrixRef w;                           // (V, D)
  const std::int32_t* labels = nullptr;  // (T), below 0: none
  const float* scale = nullptr;          // (1)
  float* loss = nullptr;                 // (1), or null
  void* dx = nullptr;                    // (T, D) as x, or null
  Compute compute = Compute::fp32;
  FaultSink faults;
};

std::size_t linear_xent_workspace(const LinearXentCall& call);  // shapes and types alone
void linear_xent(const LinearXentCall& call, void* workspace, cudaStream_t stream);

}  // namespace supersonic::cuda
