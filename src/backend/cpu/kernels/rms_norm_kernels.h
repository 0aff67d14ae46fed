// The row kernels of RMS normalisation for one instruction set. A row is read twice: the first pass
// brings it into the L1 cache and sums, the second writes, so memory traffic is one read and one
// write: bound by bandwidth.
#pragma once
#include "backend/cpu/kernels/rms_norm.h"
#include "backend/cpu/simd.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

// Four independent sums hide the latency of the addition.
template <class F>
inline float sum_terms(std::int64_t d, F&& term) {
  Vec sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= d; i += 4 * kLanes)
    for (int u = 0; u < 4; ++u) sums[u] = term(sums[u], i + u * kLanes, AllLanes{});
  for_each_vec(d - i, [&](auto j, auto n) { sums[0] = term(sums[0], i + j, n); });
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
inline float reciprocal_rms(const T* x, std::int64_t d, float eps) {
  const float sum = sum_terms(d, [&](Vec s, auto i, auto n) {
    const Vec v = load(x + i, n);
    return fma(v, v, s);
  });
  return 1.0f / __builtin_sqrtf(sum / static_cast<float>(d) + eps);
}

template <class T, class W>
void rms_norm_rows(Pool& pool, const RmsNormForward& a) {
  pool.ranges(a.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    const W* w = static_cast<const W*>(a.w);
    for (std::int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.d;
      const float rstd = reciprocal_rms(x, a.d, a.eps);
      if (a.rstd) a.rstd[row] = rstd;
      if (!a.y) continue;
      T* y = static_cast<T*>(a.y) + row * a.d;
      for_each_vec(
          a.d, [&](auto i, auto n) { store(y + i, load(x + i, n) * rstd * load(w + i, n), n); });
    }
  });
}

// dx = rstd * (w*dy - x * mean(w*dy*x) * rstd^2);  dw = sum over rows of dy * x * rstd.
template <class T, class W>
void rms_norm_backward_row(const RmsNormBackward& a, std::int64_t row, float* dw) {
  const W* w = static_cast<const W*>(a.w);
  const T* x = static_cast<const T*>(a.x) + row * a.d;
  const T* dy = static_cast<const T*>(a.dy) + row * a.d;
  const float rstd = a.rstd ? a.rstd[row] : reciprocal_rms(x, a.d, a.eps);
  if (dw)
    for_each_vec(a.d, [&](auto i, auto n) {
      store(dw + i, fma(load(dy + i, n) * rstd, load(x + i, n), load(dw + i, n)), n);
    });
  if (!a.dx) return;
  T* dx = static_cast<T*>(a.dx) + row * a.d;
  const float dot = sum_terms(a.d, [&](Vec s, auto i, auto n) {
    return fma(load(w + i, n) * load(dy + i, n), load(x + i, n), s);
  });
  const float c = -dot / static_cast<float>(a.d) * rstd * rstd * rstd;
  const auto gradient = [&](auto i, auto n) {
    return fma(load(x + i, n), c, load(w + i, n) * load(dy + i, n) * rstd);
  };
  if (!a.base) return for_each_vec(a.d, [&](auto i, auto n) { store(dx + i, gradient(i, n), n); });
  const T* base = static_cast<const T*>(a.base) + row * a.d;
  for_each_vec(a.d, [&](auto i, auto n) { store(dx + i, load(base + i, n) + gradient(i, n), n); });
}

template <class T, class W>
void rms_norm_backward_rows(Pool& pool, const RmsNormBackward& a) {
  const std::int64_t blocks = rms_norm_row_blocks(a.rows);
  float* partial = static_cast<float*>(a.workspace);
  pool.ranges(blocks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t b = begin; b < end; ++b) {
      float* dw = a.dw ? partial + b * a.d : nullptr;
      if (dw) std::memset(dw, 0, static_cast<std::size_t>(a.d) * sizeof(float));
      for (std::int64_t row = a.rows * b / blocks; row < a.rows * (b + 1) / blocks; ++row)
        rms_norm_backward_row<T, W>(a, row, dw);
    }
  });
  if (!a.dw) return;
  pool.ranges(a.d, kLanes, [&](std::int64_t begin, std::int64_t end, int) {
    for_each_vec(end - begin, [&](auto i, auto n) {
      Vec sum{};
      for (std::int64_t b = 0; b < blocks; ++b) sum += load(partial + b * a.d + begin + i, n);
      store(a.dw + begin + i, sum, n);
    });
  });
}

inline void rms_norm_forward(Pool& pool, const RmsNormForward& a) {
  const bool x16 = a.type == DType::bf16, w16 = a.w_type == DType::bf16;
  if (x16) return w16 ? rms_norm_rows<bf16, bf16>(pool, a) : rms_norm_rows<bf16, float>(pool, a);
  w16 ? rms_norm_rows<float, bf16>(pool, a) : rms_norm_rows<float, float>(pool, a);
}
inline void rms_norm_backward(Pool& pool, const RmsNormBackward& a) {
  const bool x16 = a.type == DType::bf16, w16 = a.w_type == DType::bf16;
  if (x16)
    return w16 ? rms_norm_backward_rows<bf16, bf16>(pool, a)
               : rms_norm_backward_rows<bf16, float>(pool, a);
  w16 ? rms_norm_backward_rows<float, bf16>(pool, a)
      : rms_norm_backward_rows<float, float>(pool, a);
}

const RmsNormKernels& rms_norm_kernels() {
  static constexpr RmsNormKernels table{rms_norm_forward, rms_norm_backward};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
