// The kernels between the products of linear_xent(): lists, gathers, the softmax of a row with its
// gradient, the sum of losses.
#pragma once
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels/fault.h"
#include "core/dtype.h"

namespace supersonic::cuda {

// kept (count) = the rows with a label in [0, vocab), in order. A larger label is reported and its
// row left out.
void list_labelled(const std::int32_t* labels, std::int64_t rows, std::int64_t vocab,
                   std::int32_t* kept, std::int32_t* count, FaultSink faults, cudaStream_t stream);
// to (chunk, d) = rows kept[first ...] of x.
void gather_rows(const void* x, DType type, std::int64_t d, const std::int32_t* kept,
                 const std::int32_t* count, std::int32_t first, std::int32_t chunk, void* to,
                 cudaStream_t stream);
// rows kept[first ...] of dx = the chunk's sums (chunk, d).
void scatter_rows(const float* sums, std::int64_t d, const std::int32_t* kept,
                  const std::int32_t* count, std::int32_t first, std::int32_t chunk, void* dx,
                  DType type, cudaStream_t stream);

struct SoftmaxXent {
  float* logits = nullptr;  // (chunk, vocab); with a gradient: overwritten, by f32 or by bf16 in
                            // rows of 2 * vocab
  std::int64_t vocab = 0;
  const std::int32_t* labels = nullptr;  // (T)
  const std::int32_t* kept = nullptr;
  const std::int32_t* count = nullptr;
  std::int32_t first = 0, chunk = 0;
  const float* scale = nullptr;
  double* losses = nullptr;  // (T) by position in the list
  bool gradient = false, gradient_bf16 = false;
};
void softmax_xent(const SoftmaxXent& s, cudaStream_t stream);
// loss = scale * sum of the first *count losses.
void sum_losses(const double* losses, const std::int32_t* count, const float* scale, float* loss,
                cudaStream_t stream);

}  // namespace supersonic::cuda
