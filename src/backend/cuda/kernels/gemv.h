// A product of few rows as its kernels take it (gemv.cu, gemv_row.cu).
#pragma once
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels/tiles.h"

namespace supersonic::cuda {

struct VectorTerm {
  const void* x;
  Planes w;
  std::int64_t k, ldx, ldw;
  DType x_type, w_type;        // w_type: of a dense W
  bool dense, fast_x, fast_w;  // fast: pieces are 16-byte aligned
};
struct VectorProblem {
  int m, n, count;
  VectorTerm terms[kMaxGemmTerms];
  void* y;
  std::int64_t ldy;
  DType y_type;
  bool accumulate;
};

// One row of x and weights of a format whose strips have a fast dot product (strips.cuh). False:
// not this problem.
bool vector_row(const VectorProblem& p, Codec codec, cudaStream_t stream);
// One to eight rows of bf16 and weights of a format with fragments (row_products.cu). False: not
// this problem.
bool vector_rows(const VectorProblem& p, Codec codec, cudaStream_t stream);

}  // namespace supersonic::cuda
