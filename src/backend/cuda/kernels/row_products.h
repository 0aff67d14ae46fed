// Products of one to eight rows of bf16 with packed matrices that share them: y_i (M, N_i) = x (M,
// K) * W_i (N_i, K)^T in one launch, with fp32 sums rounded once. x may be normalised first (RMS),
// two matrices may be an MLP's gate and what it lets through.
#pragma once
#include "backend/cuda/kernels/gemv.h"
#include "backend/cuda/kernels/nf4_planes.h"

namespace supersonic::cuda {

constexpr int kMostRowMatrices = 3;

enum class RowGate : int { none, silu, gelu_tanh };

struct RowMatrix {
  const std::uint8_t* codes;  // plane 0, 16-byte aligned
  Nf4Planes nf4;              // NF4 alone
  void* y;
  std::int64_t ldy;
  int n;
};
struct RowProblem {
  int m, k, count;
  int second;     // the first matrix of row_products_of_two()'s second format
  const void* x;  // bf16
  std::int64_t ldx;
  bool fast_x, fast_norm;  // rows are 16-byte aligned
  DType y_type;
  RowMatrix matrix[kMostRowMatrices];
  RowGate gate;      // of matrices 0 and 1, into matrix 0's y
  const void* norm;  // (K) f32 or bf16; null: x as it is
  DType norm_type;
  float eps;
  // Of one matrix: its y starts from this (M, N) of y's type and rows; null: from zero.
  const void* addend;
  int dense_count;  // further terms of one matrix, of few columns
  VectorTerm dense[kMaxGemmTerms - 1];
};

RowMatrix row_matrix(const Planes& planes, Codec codec, void* y, std::int64_t ldy, std::int64_t n);
// Whether there are kernels for such a format and, where x is to be normalised or is not aligned,
// whether it fits shared memory.
bool row_products_take(Codec codec, std::int64_t m, std::int64_t k, bool staged);
void row_products(RowProblem p, Codec codec, cudaStream_t stream);
// One row with matrices of two formats, those of the first one first. False: no kernel for the two.
bool row_products_of_two(const RowProblem& p, Codec first, Codec second, cudaStream_t stream);

}  // namespace supersonic::cuda
