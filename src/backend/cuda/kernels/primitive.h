// Kernels of the primitive operations. They take every scalar type, since definitions are made of
// them; arithmetic is in fp32, and in fp64 where an operand is fp64 or a whole number. They exist
// for their generality: limit bandwidth, not reached where types are mixed.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/fault.h"
#include "core/dtype.h"

namespace supersonic::cuda {

struct Array {
  void* data = nullptr;
  DType type = DType::f32;
};

void fill(Array out, std::int64_t n, double value, cudaStream_t stream);
void iota(Array out, std::int64_t n, cudaStream_t stream);
void assign(Array to, Array from, std::int64_t n,
            cudaStream_t stream);  // contiguous, any two types
void accumulate(Array to, Array from, std::int64_t n,
                cudaStream_t stream);  // to += from, rounded once

// x (outer, n, inner) -> y (outer, before + n + after, inner), zeros around; `element` bytes each:
// 1, 2, 4 or 8.
struct Padding {
  const void* x = nullptr;
  void* y = nullptr;
  std::int64_t outer = 0, n = 0, inner = 0, before = 0, after = 0;
};
void pad(const Padding& a, std::size_t element, cudaStream_t stream);

// x (outer, n, inner) -> y (outer, inner): the sum or the largest along n (-inf where n is 0).
struct Reduction {
  Array x, y;
  std::int64_t outer = 0, n = 0, inner = 0;
  bool max = false;
};
void reduce(const Reduction& a, cudaStream_t stream);

// out (…, m, n), dense, = a (…, m, k) · b (…, k, n); strides in elements, leading dimensions alike.
struct BatchProduct {
  static constexpr int kMostLeading = 4;
  Array a, b, out;
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  std::int64_t a_row = 0, a_col = 0, b_row = 0, b_col = 0;
  int leading = 0;
  std::int64_t dims[kMostLeading] = {}, a_strides[kMostLeading] = {}, b_strides[kMostLeading] = {};
};
void batch_matmul(const BatchProduct& p, cudaStream_t stream);

// cache[at[0] + i] = x[i]; rows that would lie outside are reported and left out.
struct CacheAppend {
  Array cache, x;
  const std::int32_t* at = nullptr;
  std::int64_t tokens = 0, row = 0, capacity = 0;  // row: elements
};
void append_rows(const CacheAppend& a, FaultSink faults, cudaStream_t stream);

}  // namespace supersonic::cuda
