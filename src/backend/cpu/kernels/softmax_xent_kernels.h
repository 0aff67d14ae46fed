// Softmax cross-entropy, log-sum-exp and argmax of rows for one instruction set.
// A row is taken in pieces that fit the L1 cache. The first pass finds each piece's maximum and
// sums exp(x - maximum); with fp32 logits and a gradient it also leaves the exponentials in place,
// so that the second pass is one multiplication: one exp an element, one read and one write of
// memory as long as a row fits the L2 cache. bf16 logits are too coarse to hold the exponentials;
// they are computed again.
#pragma once
#include "backend/cpu/kernels/softmax_xent.h"
#include "backend/cpu/simd_math.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

constexpr std::int64_t kPiece = 2048;     // elements of a piece, at least
constexpr std::int64_t kMaxPieces = 512;  // pieces get longer in rows of over a million

inline std::int64_t piece_length(std::int64_t n) {
  if (n <= kPiece * kMaxPieces) return kPiece;
  return (n + kMaxPieces - 1) / kMaxPieces;
}

template <class T>
float piece_max(const T* x, std::int64_t n) {
  Vec m[4] = {set(-kInfinity), set(-kInfinity), set(-kInfinity), set(-kInfinity)};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int u = 0; u < 4; ++u) m[u] = max(m[u], load(x + i + u * kLanes));
  for_each_vec(n - i, [&](auto j, auto lanes) {
    m[0] = max(m[0], select(first_lanes(lanes), load(x + i + j, lanes), set(-kInfinity)));
  });
  return reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
}

// Sum of exp(x - m) over a piece; out, if any, keeps the terms.
template <class T>
float piece_exp_sum(const T* x, std::int64_t n, float m, float* out) {
  Vec s[2] = {};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes)
    for (int u = 0; u < 2; ++u) {
      const Vec e = exp(load(x + i + u * kLanes) - m);
      if (out) store(out + i + u * kLanes, e);
      s[u] += e;
    }
  for_each_vec(n - i, [&](auto j, auto lanes) {
    const Vec e = exp(load(x + i + j, lanes) - m);
    if (out) store(out + i + j, e, lanes);
    s[1] += select(first_lanes(lanes), e, Vec{});
  });
  return reduce_add(s[0] + s[1]);
}

// In double: a gradient is p - 1 where p is nearly 1, and a float's last bit at lse = 20 would be 2e-6 of it.
// maxima: one a piece. terms: null, or where exp(x - its piece's maximum) goes; may be x.
template <class T>
double row_log_sum_exp(const T* x, std::int64_t n, float* maxima, float* terms) {
  float m = -kInfinity;
  double sum = 0;
  const std::int64_t piece = piece_length(n);
  for (std::int64_t begin = 0, p = 0; begin < n; begin += piece, ++p) {
    const std::int64_t count = n - begin < piece ? n - begin : piece;
    const float top = piece_max(x + begin, count);
    const float base = top == -kInfinity ? 0.0f : top;
    const double s = piece_exp_sum(x + begin, count, base, terms ? terms + begin : nullptr);
    maxima[p] = base;
    if (top > m) {
      sum = sum * __builtin_exp(static_cast<double>(m) - top) + s;
      m = top;
    } else {
      sum += s * __builtin_exp(static_cast<double>(base) - (m == -kInfinity ? 0.0f : m));
    }
  }
  return (m == -kInfinity ? 0.0f : m) + __builtin_log(sum);
}

template <class T>
void cap_row(T* x, std::int64_t n, float cap) {
  for_each_vec(n, [&](auto i, auto lanes) { store(x + i, tanh(load(x + i, lanes) * (1.0f / cap)) * cap, lanes); });
}

// Of capped logits l: (softmax - onehot) * scale * (1 - (l / cap)²), in place.
template <class T>
void capped_gradient(const SoftmaxXent& a, T* x, std::int32_t label, float target, double lse, double loss, float scale) {
  const auto slope = [&](auto l) { return 1.0f - l * (1.0f / a.cap) * (l * (1.0f / a.cap)); };
  for_each_vec(a.vocab, [&](auto i, auto n) {
    const Vec l = load(x + i, n);
    store(x + i, exp(l - static_cast<float>(lse)) * scale * slope(l), n);
  });
  store(x + label, set(static_cast<float>(__builtin_expm1(-loss)) * scale * slope(target)), 1);
}

// (softmax - onehot) * scale in place, from what is known of the row.
template <class T>
void known_gradient(const SoftmaxXent& a, T* x, std::int32_t label, double lse, double loss, float scale) {
  for_each_vec(a.vocab, [&](auto i, auto n) { store(x + i, exp(load(x + i, n) - static_cast<float>(lse)) * scale, n); });
  store(x + label, set(static_cast<float>(__builtin_expm1(-loss)) * scale), 1);
}

template <class T>
void xent_row(const SoftmaxXent& a, std::int64_t row, float* maxima) {
  T* x = static_cast<T*>(a.logits) + row * a.stride;
  const std::int32_t label = a.labels[row];
  if (label == kIgnoredLabel && !a.lse) {
    if (a.loss) a.loss[row] = 0;
    if (a.gradient)
      std::memset(static_cast<void*>(x), 0, static_cast<std::size_t>(a.vocab) * sizeof(T));
    return;
  }
  const bool ignored = label == kIgnoredLabel;
  if (a.cap > 0) cap_row(x, a.vocab, a.cap);
  const float target = ignored ? 0.0f : load(x + label, 1)[0];
  const float scale = a.scale * (a.row_scale ? a.row_scale[row] : 1.0f);
  if (a.known_lse) {
    const double lse = a.known_lse[row], loss = a.known_loss[row];
    return a.cap > 0 ? capped_gradient(a, x, label, target, lse, loss, scale) : known_gradient(a, x, label, lse, loss, scale);
  }
  float* terms = nullptr;
  if constexpr (sizeof(T) == 4) terms = a.gradient && a.cap == 0 ? x : nullptr;
  const double lse = row_log_sum_exp(x, a.vocab, maxima, terms);
  if (a.loss) a.loss[row] = ignored ? 0.0f : static_cast<float>(lse - target);
  if (a.lse) a.lse[row] = static_cast<float>(lse);
  if (!a.gradient) return;
  if (ignored)
    return void(
        std::memset(static_cast<void*>(x), 0, static_cast<std::size_t>(a.vocab) * sizeof(T)));
  if (a.cap > 0) return capped_gradient(a, x, label, target, lse, lse - target, scale);
  const std::int64_t piece = piece_length(a.vocab);
  for (std::int64_t begin = 0, p = 0; begin < a.vocab; begin += piece, ++p) {
    const std::int64_t count = a.vocab - begin < piece ? a.vocab - begin : piece;
    T* y = x + begin;
    if constexpr (sizeof(T) == 4) {
      const float factor = static_cast<float>(__builtin_exp(maxima[p] - lse)) * scale;
      for_each_vec(count, [&](auto i, auto n) { store(y + i, load(y + i, n) * factor, n); });
    } else {
      for_each_vec(count,
                   [&](auto i, auto n) { store(y + i, exp(load(y + i, n) - static_cast<float>(lse)) * scale, n); });
    }
  }
  // The label's element is found from its own logit, without the cancellation of p - 1 in the
  // stored p.
  store(x + label,
        set(static_cast<float>(__builtin_expm1(static_cast<double>(target) - lse)) * scale), 1);
}

template <class T>
void xent_rows(Pool& pool, const SoftmaxXent& a) {
  pool.ranges(a.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    float maxima[kMaxPieces];
    for (std::int64_t row = begin; row < end; ++row) xent_row<T>(a, row, maxima);
  });
}

inline void softmax_xent(Pool& pool, const SoftmaxXent& a) {
  check(a);
  a.type == DType::bf16 ? xent_rows<bf16>(pool, a) : xent_rows<float>(pool, a);
}

template <class T>
void log_sum_exp_rows(Pool& pool, const RowReduction& a, float* out) {
  pool.ranges(a.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    float maxima[kMaxPieces];
    for (std::int64_t row = begin; row < end; ++row)
      out[row] = static_cast<float>(
          row_log_sum_exp(static_cast<const T*>(a.x) + row * a.stride, a.n, maxima, nullptr));
  });
}

template <class T>
std::int32_t argmax_row(const T* x, std::int64_t n) {
  Vec best = set(-kInfinity);
  VecI where = set_int(-1);
  for_each_vec(n, [&](auto i, auto lanes) {
    const Vec v = load(x + i, lanes);
    const VecI index = iota() + static_cast<std::int32_t>(i);
    const VecI better = ((v > best) | ((where < 0) & (v == best))) & first_lanes(lanes);
    best = select(better, v, best);
    where = select(better, index, where);
  });
  float top = -kInfinity;
  std::int32_t found = -1;
  for (int i = 0; i < kLanes; ++i) {
    if (where[i] < 0) continue;
    if (found < 0 || best[i] > top || (best[i] == top && where[i] < found))
      top = best[i], found = where[i];
  }
  return found;
}

template <class T>
void argmax_rows(Pool& pool, const RowReduction& a, std::int32_t* out) {
  pool.ranges(a.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row)
      out[row] = argmax_row(static_cast<const T*>(a.x) + row * a.stride, a.n);
  });
}

inline void log_sum_exp(Pool& pool, const RowReduction& a, float* out) {
  a.type == DType::bf16 ? log_sum_exp_rows<bf16>(pool, a, out)
                        : log_sum_exp_rows<float>(pool, a, out);
}
inline void argmax(Pool& pool, const RowReduction& a, std::int32_t* out) {
  a.type == DType::bf16 ? argmax_rows<bf16>(pool, a, out) : argmax_rows<float>(pool, a, out);
}

const SoftmaxXentKernels& softmax_xent_kernels() {
  static constexpr SoftmaxXentKernels table{softmax_xent, log_sum_exp, argmax};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
