// Matrix products of the CPU backend, as plain functions over pointers.
//
//   Y(M, N) = [Y +] alpha * sum_i X_i(M, K_i) * W_i(N, K_i)^T
//
// All terms are summed in fp32 and rounded once, at the store: x*W^T + t*B^T (LoRA) or dq*Wq +
// dk*Wk + dv*Wv is one call. X is f32, bf16, f16, or rows prepared by quantize_int8_rows; W is f32,
// bf16, f16 or any Format; each may be transposed. Y must not overlap an operand. For a given
// instruction set and thread count the result is the same bits every time.
//
// Compute says what operands may be rounded to: fp32 rounds nothing; bf16 and int8 round the floats
// of X and W to bf16 where the machine multiplies bf16 natively and are fp32 elsewhere. Terms whose
// X is prepared are int8 whatever Compute says.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/cpu/pool.h"
#include "core/compute.h"
#include "core/dtype.h"
#include "formats/format.h"

namespace supersonic::cpu {

// A matrix as it is stored: rows x cols, row-major, ld elements from row to row. With a format:
// dense rows in `planes`, data and ld unused. dtype i8: a buffer filled by quantize_int8_rows (rows
// = M, cols = K), ld unused.
struct MatrixRef {
  const void* data = nullptr;
  DType dtype = DType::f32;
  bool panels = false;  // X alone, dtype bf16: a buffer filled by pack_bf16_panels, ld unused
  const Format* format = nullptr;
  Planes planes = {};
  std::int64_t rows = 0, cols = 0, ld = 0;
};

// One product X(M,K) * W(N,K)^T. trans_x: X is stored (K, M). trans_w: W is stored (K, N) instead
// of (N, K), which is a linear layer's orientation. Prepared rows cannot be transposed.
struct GemmTerm {
  MatrixRef x;
  bool trans_x = false;
  MatrixRef w;
  bool trans_w = false;
};

constexpr int kMaxGemmTerms = 8;

struct GemmProblem {
  std::int64_t m = 0, n = 0;
  std::span<const GemmTerm> terms;
  void* y = nullptr;
  DType y_dtype = DType::f32;  // f32, bf16, f16
  std::int64_t ldy = 0;
  bool accumulate = false;
  Compute compute = Compute::fp32;
  float alpha = 1.0f;
};

// Bytes of scratch that gemm() needs; depends on shapes and types, not on pointers. Any alignment
// will do, 2 MiB is best.
std::size_t gemm_workspace(const GemmProblem& problem, int threads);
// Throws Error when shapes, dtypes or orientations do not fit together; nothing has been written
// then.
void gemm(Pool& pool, const GemmProblem& problem, void* workspace);

// What the loops know of a format: whether they decode it themselves rather than through
// Format::decode, and whether they multiply its codes by int8 activations.
struct FormatProducts {
  bool own_loops = false, int8 = false;
};
FormatProducts products_of(const Format& format);

// Activations as int8: codes per group of 32 along K, an fp32 scale and the sums that offsets need.
// Done once for all products that read the same rows. The layout depends on M and on the
// instruction set and lives in memory only.
std::size_t int8_rows_bytes(std::int64_t m, std::int64_t k);
// x (m, k) f32, bf16 or f16, row-major, ld elements from row to row.
void quantize_int8_rows(Pool& pool, const void* x, DType dtype, std::int64_t m, std::int64_t k,
                        std::int64_t ld, void* out);


// Activations as the bf16 loops read them: rounded, and turned into panels of a few rows. Where packs_bf16() is false no product
// takes them. The layout lives in memory only.
bool packs_bf16();
std::size_t bf16_panels_bytes(std::int64_t m, std::int64_t k);
// x (m, k) f32, bf16 or f16, row-major, ld elements from row to row.
void pack_bf16_panels(Pool& pool, const void* x, DType dtype, std::int64_t m, std::int64_t k,
                      std::int64_t ld, void* out);

}  // namespace supersonic::cpu
