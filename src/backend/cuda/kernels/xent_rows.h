// The kernels between the products of linear_xent(): lists, gathers, the softmax of a slice of the
// vocabulary, the gradient from the sums, the sum of losses.
#pragma once
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels/fault.h"
#include "core/dtype.h"

namespace supersonic::cuda {

constexpr std::int64_t kMostSliceWords = 8192;  // a block holds a row of a slice in registers

// kept (count) = the rows with a label in [0, vocab), in order. A larger label is reported and its
// row left out.
void list_labelled(const std::int32_t* labels, std::int64_t rows, std::int64_t vocab,
                   std::int32_t* kept, std::int32_t* count, FaultSink faults, cudaStream_t stream);

// Positions first .. first + chunk - 1 of the list, and what is known of each of these rows so far.
struct ChunkRows {
  std::int32_t first = 0, chunk = 0;
  std::int32_t* kept = nullptr;   // the whole list
  std::int32_t* count = nullptr;  // its length
  std::int32_t* label = nullptr;  // (chunk); 0 past the end of the list
  float* top = nullptr;           // (chunk) the largest logit
  double* sum = nullptr;          // (chunk) of exp(logit - top)
  float* target = nullptr;        // (chunk) the label's logit
  float* decay = nullptr;         // (chunk) what sums relative to the last top are multiplied by
  const float* scale = nullptr;
};

// to (chunk, d) = the chunk's rows of x; labels are looked up, and nothing is known yet.
void gather_rows(const void* x, DType type, std::int64_t d, const std::int32_t* labels,
                 const ChunkRows& rows, void* to, DType to_type, cudaStream_t stream);

struct SliceOfWords {
  float* logits = nullptr;  // (chunk, words); with a gradient: overwritten by exponentials, f32 or
                            // bf16 in rows of 2 * ld, and 0 at the label
  std::int64_t ld = 0;      // a multiple of 8
  std::int32_t word = 0, words = 0;  // words <= kMostSliceWords
  bool gradient = false, gradient_bf16 = false;
};
void softmax_slice(const SliceOfWords& slice, const ChunkRows& rows, cudaStream_t stream);

// losses (T), by position in the list; lse and nll (T), if wanted, by row. dx, if wanted: the chunk's
// rows of (T, d), from the sums of exponentials times words (chunk, d) and the labels' own words
// (chunk, d).
struct FinishedRows {
  double* losses = nullptr;
  float *lse = nullptr, *nll = nullptr;
  void* dx = nullptr;
  DType type = DType::f32;  // of dx
};
void finish_rows(const float* sums, const float* label_words, std::int64_t d, const ChunkRows& rows,
                 const FinishedRows& to, cudaStream_t stream);

// The slice's logits become the gradient along them, scale * dloss * (p - 1 at the label), as
// SliceOfWords says; rows past the end of the list become zeros. lse and nll (T) are known.
struct KnownRows {
  const float *lse = nullptr, *nll = nullptr, *dloss = nullptr;
};
void gradient_slice(const SliceOfWords& slice, const ChunkRows& rows, const KnownRows& known,
                    cudaStream_t stream);

// loss = scale * sum of the first *count losses.
void sum_losses(const double* losses, const std::int32_t* count, const float* scale, float* loss,
                cudaStream_t stream);

}  // namespace supersonic::cuda
