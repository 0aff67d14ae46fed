// Projection: what a decoder does with the rows of a token around its weights, as one operation: up to three products that
// share an input, which may be normalised first; or the gated pair of an MLP; or one product added to the residual stream. It
// means the smaller operations that define() records, and a backend without a kernel for it runs those. With few rows a step
// reads every weight once and each launch is felt, so there one kernel does it all.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

struct Projection {
  enum Gate : std::uint8_t { none, silu, gelu_tanh };
  std::uint8_t matrices = 1;    // 1 to 3
  std::uint8_t normed = 0;      // input 1 is the weight of an RMS norm over x
  std::uint8_t gate = none;     // of two matrices: gate(x W0^T) * (x W1^T)
  std::uint8_t added = 0;       // of one matrix: the last input (M, N) + x W0^T
  std::uint8_t wide = 0;        // y_j in f32 whatever x is
  std::uint16_t sensitive = 0;  // as Gemm's, a bit a matrix
  float eps = 0;                // of the norm
  static void infer(Infer& i);  // x (M, K), [norm (K)], W_j (N_j, K), [residual (M, N)] -> y_j (M, N_j) in x's dtype, or f32
  static Tensors define(const Projection& a, Args in);
  static std::vector<Case> cases();
  int first_matrix() const { return 1 + normed; }
};
OP(Projection);

}  // namespace supersonic
