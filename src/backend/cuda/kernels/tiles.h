// The tiled products behind gemm(): dense operands alone, a list of terms, optionally the sum split
// into parts that a second kernel adds in order. K is walked in steps of kStepK, each within one
// term.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/gemm.h"
#include "core/dtype.h"

namespace supersonic::cuda {

constexpr int kStepK = 64;

struct TileTerm {
  const void* x = nullptr;
  const void* w = nullptr;
  std::int64_t ldx = 0, ldw = 0;  // elements
  int k = 0;
  DType x_type = DType::bf16, w_type = DType::bf16;  // of tiles_f32; tiles_bf16 takes bf16 alone
  bool trans_x = false, trans_w = false;
  bool aligned_x = false, aligned_w = false;  // 16-byte addresses and row strides
};

struct TileProblem {
  int m = 0, n = 0, count = 0, steps = 0;  // steps of all terms
  TileTerm terms[kMaxGemmTerms];
  void* y = nullptr;
  std::int64_t ldy = 0;
  DType y_type = DType::f32;
  bool accumulate = false;
  const float* decay = nullptr;  // as in GemmProblem
  float alpha = 1;
  int splits = 1;
  float* partial = nullptr;            // (splits, m, n) where splits > 1
  const std::int32_t* live = nullptr;  // as in GemmProblem
  std::int32_t live_from = 0;
};

struct TileShape {
  int m, n;
};
TileShape tile_shape_f32();
TileShape tile_shape_bf16(std::int64_t m, std::int64_t n);
TileShape tile_shape_wgmma(std::int64_t m, std::int64_t n);

// Waves of the larger tile over the device that Y (m, n) takes, the smaller tile's in its time.
double wgmma_waves(std::int64_t m, std::int64_t n);

void tiles_f32(const TileProblem& p, cudaStream_t stream);    // SIMT, fp32
void tiles_bf16(const TileProblem& p, cudaStream_t stream);   // mma.sync m16n8k16
void tiles_wgmma(const TileProblem& p, cudaStream_t stream);  // Hopper; all operands aligned
void add_splits(const TileProblem& p, cudaStream_t stream);   // y from the partial sums

// Few rows: weights read where they lie. True where every term has a kernel.
bool vector_product_takes(const GemmProblem& p);
void vector_product(const GemmProblem& p, cudaStream_t stream);

}  // namespace supersonic::cuda
