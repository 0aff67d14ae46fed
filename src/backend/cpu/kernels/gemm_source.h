// What the parts of the matrix product share: the chosen inner loops, matrices as these loops see
// them, small arithmetic.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cpu/kernels/gemm.h"
#include "backend/cpu/kernels/gemm_inner.h"

namespace supersonic::cpu::gemm_parts {

using std::int64_t;
using std::size_t;

constexpr size_t kLine = 64;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
constexpr size_t round_up(size_t a, size_t b) { return (a + b - 1) / b * b; }
template <class T>
T* align_up(T* p, size_t to) {
  return reinterpret_cast<T*>(round_up(reinterpret_cast<std::uintptr_t>(p), to));
}

const Inner& inner();  // of the instruction set in use
Codec codec_of(const MatrixRef& w);
// `m` is the reference that lives in the problem: its planes are pointed at, not copied.
Source source_of(const MatrixRef& m);

}  // namespace supersonic::cpu::gemm_parts
