// Products one side of which is thin, at the rate at which the memory brings the other: LoRA's, and
// those of a router of experts.
//
//   thin_rows   Y (M, N) = X (M, K) * W^T       N at most kThinRows; X bf16, read once
//   thin_sums   Y (R, C) or (C, R) = T^T * Z    R at most kThinSums; Z (K, C) bf16, read once
//
// Beyond these the general kernels are as fast or faster.
//
// K is shared out to the blocks of a cluster, which add their sums through shared memory in a fixed
// order: no workspace, no atomics. Hopper's, whose clusters and 227 KiB of shared memory they need.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace supersonic::cuda {

constexpr std::int64_t kThinRows = 32, kThinSums = 64;

// What becomes of a sum.
struct ThinResult {
  void* y;
  std::int64_t ldy;
  DType type;
  bool accumulate;
  float alpha;
};

struct ThinRows {
  const void* x;  // (m, k) bf16
  const void* w;  // (n, k), or (k, n) where tall_w; f32 or bf16
  std::int64_t ldx, ldw;
  int m, n, k;
  bool tall_w;
  DType w_type;
  int shift;    // log2 of the blocks that share a sum; set by thin_rows, as is the next
  bool fast_w;  // W is read in vectors
  ThinResult result;
};
void thin_rows(ThinRows problem, cudaStream_t stream);

struct ThinSums {
  const void* t;  // (k, r) bf16
  const void* z;  // (k, c) bf16
  std::int64_t ldt, ldz;
  int r, c, k;
  bool tall_y;  // Y is (c, r)
  int shift;    // as above; set by thin_sums
  ThinResult result;
};
void thin_sums(ThinSums problem, cudaStream_t stream);

}  // namespace supersonic::cuda
