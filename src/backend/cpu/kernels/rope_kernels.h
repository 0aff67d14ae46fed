// Rotary position embedding for one instruction set: sines and cosines of a token are computed once
// for all its heads, in a small table on the stack.
#pragma once
#include "backend/cpu/kernels/rope.h"
#include "backend/cpu/simd_math.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

// Angle position * inv_freq, less the nearest multiple of 2 pi: within [-pi, pi].
inline float reduced_angle(double position, float inv_freq) {
  constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52 rounds to an integer
  const double angle = position * static_cast<double>(inv_freq);
  const double turns = (angle * 0.15915494309189535 + magic) - magic;
  return static_cast<float>((angle - turns * 0x1.921fb54442d18p+2) - turns * 0x1.1a62633145c07p-52);
}

struct RopeTable {  // the halves keep one entry a pair; the interleaved form keeps (c, c) and (-s,
                    // s)
  alignas(64) float cos[kMaxRotary];
  alignas(64) float sin[kMaxRotary];
};

inline void fill_table(RopeTable& t, const Rope& a, std::int32_t position) {
  const std::int64_t pairs = a.rotary / 2;
  alignas(64) float angle[kMaxRotary / 2];
  for (std::int64_t i = 0; i < pairs; ++i) angle[i] = reduced_angle(position, a.inv_freq[i]);
  const float sign = a.inverse ? -a.factor : a.factor;
  for_each_vec(pairs, [&](auto i, auto n) {
    const SinCos v = sin_cos(load(angle + i, n));
    store(t.cos + i, v.cos * a.factor, n);
    store(t.sin + i, v.sin * sign, n);
  });
  if (a.pairing == RopePairing::halves) return;
  for (std::int64_t i = pairs - 1; i >= 0; --i) {
    const float c = t.cos[i], s = t.sin[i];
    t.cos[2 * i] = t.cos[2 * i + 1] = c;
    t.sin[2 * i] = -s, t.sin[2 * i + 1] = s;
  }
}

inline Vec swap_pairs(Vec v) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(_mm512_permute_ps(reinterpret_cast<__m512>(v), 0xb1));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(_mm256_permute_ps(reinterpret_cast<__m256>(v), 0xb1));
#else
  return __builtin_shufflevector(v, v, 1, 0, 3, 2);
#endif
}

template <class T>
void rope_head(const RopeTable& t, const Rope& a, const T* x, T* y) {
  const std::int64_t half = a.rotary / 2;
  if (a.pairing == RopePairing::halves) {
    for_each_vec(half, [&](auto i, auto n) {
      const Vec c = load(t.cos + i, n), s = load(t.sin + i, n), u = load(x + i, n),
                v = load(x + half + i, n);
      store(y + i, u * c - v * s, n);
      store(y + half + i, u * s + v * c, n);
    });
  } else {
    for_each_vec(a.rotary, [&](auto i, auto n) {
      const Vec v = load(x + i, n);
      store(y + i, v * load(t.cos + i, n) + swap_pairs(v) * load(t.sin + i, n), n);
    });
  }
  if (x != y && a.rotary < a.d)
    std::memcpy(y + a.rotary, x + a.rotary, static_cast<std::size_t>(a.d - a.rotary) * sizeof(T));
}

template <class T>
void rope_tokens(Pool& pool, const Rope& a) {
  pool.ranges(a.tokens, 1, [&](std::int64_t begin, std::int64_t end, int) {
    RopeTable table;
    for (std::int64_t token = begin; token < end; ++token) {
      fill_table(table, a, a.positions[token]);
      for (std::int64_t head = 0; head < a.heads; ++head)
        rope_head(table, a, static_cast<const T*>(a.x) + token * a.x_stride + head * a.d,
                  static_cast<T*>(a.y) + token * a.y_stride + head * a.d);
    }
  });
}

inline void rope(Pool& pool, const Rope& a) {
  check(a);
  a.type == DType::bf16 ? rope_tokens<bf16>(pool, a) : rope_tokens<float>(pool, a);
}

const RopeKernels& rope_kernels() {
  static constexpr RopeKernels table{rope};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
