// Matrix products of the CUDA backend, as plain functions over device pointers.
//
//   Y (M, N) = [Y +] alpha * sum_i X_i (M, K_i) * W_i (N, K_i)^T,   each X, W stored transposed if asked
//
// All terms are summed in fp32 and rounded once. X is f32, bf16 or f16; W also any Format.
// Compute::fp32 rounds no operand; bf16 (and int8, which behaves the same here) rounds both to bf16
// and multiplies in the tensor cores, where there are any for bf16. Up to kVectorRows rows of X
// meet the weights where they lie and in fp32. Results do not depend on timing: there are no
// atomics, and a split sum is added in a fixed order. Y must not overlap an operand.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <span>

#include "backend/cuda/kernels/codec.h"
#include "core/compute.h"

namespace supersonic::cuda {

constexpr int kMaxGemmTerms = 7;
constexpr std::int64_t kVectorRows = 8;

struct MatrixRef {
  Codec codec = Codec::f32;
  Planes planes;  // plane 0 of a dense matrix is its data, at any multiple of the element's size
  std::int64_t rows = 0, cols = 0;
  std::int64_t ld = 0;         // elements from row to row, dense matrices alone; 0: cols
  std::int64_t first_row = 0;  // the matrix begins at this row of what the planes hold
};

struct GemmTerm {
  MatrixRef x;  // (M, K), or (K, M) with trans_x
  bool trans_x = false;
  MatrixRef w;  // (N, K), or (K, N) with trans_w
  bool trans_w = false;
};

struct GemmProblem {
  std::int64_t m = 0, n = 0;
  std::span<const GemmTerm> terms;
  void* y = nullptr;
  DType y_type = DType::f32;  // f32, bf16 or f16
  std::int64_t ldy = 0;
  bool accumulate = false;
  // Device (M), with accumulate: Y [m] is multiplied by decay [m] before the sum is added. Null: as
  // it is.
  const float* decay = nullptr;
  Compute compute = Compute::fp32;
  float alpha = 1;
  std::int64_t longest_sum = 0;  // no run of additions is longer than this; 0: as is fastest
  // Device: only the first *live - live_from rows of X and Y matter, the others may be left as they
  // are. Null: all matter.
  const std::int32_t* live = nullptr;
  std::int32_t live_from = 0;
};

// Whether float operands will be rounded to bf16: their readers may then share one bf16 copy, and
// pass that.
bool gemm_in_bf16(const GemmProblem& problem);
// Bytes that gemm() needs; depends on shapes and types, not on pointers. 256-byte aligned.
std::size_t gemm_workspace(const GemmProblem& problem);
void gemm(const GemmProblem& problem, void* workspace, cudaStream_t stream);

}  // namespace supersonic::cuda
