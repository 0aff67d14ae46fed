// Products of E4M3 operands on Hopper, for --compute fp8. The form of a number:
//
//   value = code · 2^e,   code in E4M3 (formats/fp8.h), rounded to nearest even,
//   2^e: one for 256 numbers of a row of X along K, one for 256 along K by 128 across of W, whose
//        weights are rounded to bf16 first; the least for which the largest of them is at most
//        448 · 2^e (at least 2^-126)
//
// A scale that is a power of two costs a floating-point code nothing, and makes quantization exact
// but for the rounding of codes. Codes lie with K running along rows, which wgmma demands:
// backward, W is turned while it is decoded.
#pragma once
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels/gemm.h"

namespace supersonic::cuda {

constexpr int kFp8Group = 256;   // numbers along K that share a scale,
constexpr int kFp8Across = 128;  // and rows of W
constexpr int kFp8WScale = 4;  // floats from one scale of W to the next: what the copy engine takes

// X (rows, cols) as codes, rows of ld() bytes, then scales: of a group of columns for every row,
// group after group.
struct Fp8Rows {
  std::int64_t rows, cols;
  std::int64_t groups() const { return (cols + kFp8Group - 1) / kFp8Group; }
  std::int64_t ld() const { return groups() * kFp8Group; }
  std::int64_t scales_ld() const { return (rows + 255) / 256 * 256; }  // whole tiles
  std::size_t scales_at() const {
    return static_cast<std::size_t>((rows * ld() + 255) / 256 * 256);
  }
  std::size_t bytes() const {
    return scales_at() + static_cast<std::size_t>(groups() * scales_ld()) * sizeof(float);
  }
};
// data: (rows, cols) f32, bf16 or f16, dense. out: 256-byte aligned.
void quantize_rows(const void* data, DType type, const Fp8Rows& shape, void* out,
                   cudaStream_t stream);

// A rectangle of W, its columns or (turned) its rows along K.
struct Fp8Blocks {
  MatrixRef w;  // quantized, or bf16 or f16; columns a multiple of 8 where quantized
  bool turned = false;
  std::int64_t row = 0, rows = 0, col = 0, width = 0;  // row, col: multiples of 256
  std::uint8_t* codes = nullptr;  // (rows or, turned, width; K rounded up to kFp8Group)
  float* scales = nullptr;        // (codes' rows / kFp8Across, K / kFp8Group, kFp8WScale)
};
// A matrix of an adapter, converted to bf16 by the launch that decodes the weights beside it.
struct Converted {
  MatrixRef m;
  void* out = nullptr;
  std::int64_t ld = 0;  // of out, elements
};
void decode_blocks(const Fp8Blocks& blocks, std::span<const Converted> beside, cudaStream_t stream);

// A term's operands: codes with scales, or bf16.
struct Fp8Term {
  const void *x = nullptr, *w = nullptr;
  std::int64_t ldx = 0, ldw = 0;  // elements; multiples of 16 bytes
  int k = 0;
  bool codes = false;
  bool trans_w = false;  // bf16 alone
  const float *x_scales = nullptr, *w_scales = nullptr;
  std::int64_t x_scales_ld = 0;
};
struct Fp8Tiles {
  int m = 0, n = 0, count = 0;
  Fp8Term terms[kMaxGemmTerms];
  void* y = nullptr;           // bf16
  const void* base = nullptr;  // bf16, laid out as Y, which may be the same: what sums are added to
  std::int64_t ldy = 0;
  float alpha = 1;
};
void tiles_fp8(const Fp8Tiles& p, cudaStream_t stream);  // Hopper alone

// The driver. Every weight but one in f32, which is an adapter's, becomes codes. Its X is Fp8Rows
// in plane 0 where its codec is none, and becomes that in the workspace where it is a float's; all
// other operands are bf16 in the products. Y is bf16.
bool becomes_codes(const GemmTerm& term);
const char* gemm_fp8_rejects(const GemmProblem& p);  // null: takes it
std::size_t gemm_fp8_workspace(const GemmProblem& p);
void gemm_fp8(const GemmProblem& p, void* workspace, cudaStream_t stream);

}  // namespace supersonic::cuda
