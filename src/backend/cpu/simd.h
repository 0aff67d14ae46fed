// One vector of floats, as wide as the instruction set that this file is compiled for: 16 lanes
// under AVX-512, 8 under AVX2, 4 elsewhere. Arithmetic, comparison and ?: are the compilers' vector
// extensions; intrinsics stand only where those give poor code: conversions, fused multiply-add,
// min/max, masked tails.
//
// Everything lives in a namespace named for the instruction set (SIMD_NAMESPACE), so that an inline
// function compiled for AVX-512 can never be the one that the linker keeps for portable code.
// Include this only from *_avx512.cpp,
// *_avx2.cpp and *_portable.cpp files (and headers for those). Vector math is in simd_math.h.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/dtype.h"

#if defined(__AVX2__)
#if defined(__GNUC__) && \
    !defined(__clang__)  // GCC 12's own headers warn about their undefined vectors (PR 105593)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#endif

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define SIMD_NAMESPACE avx512
#define SIMD_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define SIMD_NAMESPACE avx2
#define SIMD_AVX2 1
#else
#define SIMD_NAMESPACE portable
#endif

namespace supersonic::cpu::SIMD_NAMESPACE {

#if defined(SIMD_AVX512)
constexpr int kLanes = 16;
#elif defined(SIMD_AVX2)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t VecI
    __attribute__((vector_size(kLanes * 4)));  // integers, and masks: -1 true, 0 false
typedef std::uint32_t VecU __attribute__((vector_size(kLanes * 4)));
typedef std::uint16_t VecH __attribute__((vector_size(kLanes * 2)));

inline Vec set(float x) { return x - Vec{}; }
inline VecI set_int(std::int32_t x) { return x - VecI{}; }
inline VecI bits(Vec v) { return reinterpret_cast<VecI>(v); }
inline Vec from_bits(VecI v) { return reinterpret_cast<Vec>(v); }
inline VecI iota() {
  VecI v;
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}
inline VecI first_lanes(int n) { return iota() < n; }  // mask of lanes 0..n-1

inline Vec select(VecI mask, Vec a, Vec b) { return mask ? a : b; }
inline VecI select(VecI mask, VecI a, VecI b) { return mask ? a : b; }
inline Vec to_float(VecI v) { return __builtin_convertvector(v, Vec); }
inline VecI to_int(Vec v) { return __builtin_convertvector(v, VecI); }  // towards zero
inline Vec abs(Vec v) { return from_bits(bits(v) & 0x7fffffff); }
inline Vec copy_sign(Vec magnitude, Vec sign) {
  return from_bits((bits(magnitude) & 0x7fffffff) |
                   (bits(sign) & static_cast<std::int32_t>(0x80000000u)));
}

// a * b + c; fused where the machine can.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(_mm256_fmadd_ps(
      reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}
inline Vec fma(Vec a, float b, Vec c) { return fma(a, set(b), c); }
inline Vec fma(Vec a, Vec b, float c) { return fma(a, b, set(c)); }

// When either operand is NaN, b is returned: min(limit, x) keeps the NaN of x.
inline Vec min(Vec a, Vec b) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(
      _mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(
      _mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a < b ? a : b;
#endif
}
inline Vec max(Vec a, Vec b) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(
      _mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(
      _mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}
inline Vec sqrt(Vec v) {  // correctly rounded
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(_mm512_sqrt_ps(reinterpret_cast<__m512>(v)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(_mm256_sqrt_ps(reinterpret_cast<__m256>(v)));
#else
  for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}
inline Vec rsqrt(Vec v) { return 1.0f / sqrt(v); }  // at most 1 ulp

// Sums and maxima over the lanes, always in the same tree order.
inline float reduce_add(Vec v) {
  float x[kLanes];
  std::memcpy(x, &v, sizeof x);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}
inline float reduce_max(Vec v) {
  float x[kLanes];
  std::memcpy(x, &v, sizeof x);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
  return x[0];
}

// 16-bit floats in the low half of each lane <-> floats. Rounding is to nearest even, subnormals
// and NaN are kept: the same bits as the scalar types of core/dtype.h.
inline Vec widen_bf16(VecH h) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(h)), 16));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(h)), 16));
#else
  return reinterpret_cast<Vec>(__builtin_convertvector(h, VecU) << 16);
#endif
}
inline VecH narrow_bf16_exact(Vec v) {
  const VecU u = reinterpret_cast<VecU>(v);
  const VecU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const VecU nan = (u >> 16) | 0x40u;
  const VecI is_nan = v != v;
  const VecU r = is_nan ? nan : rounded;
#if defined(SIMD_AVX512)
  return reinterpret_cast<VecH>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(r)));
#elif defined(SIMD_AVX2)
  const __m256i x = reinterpret_cast<__m256i>(r);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
  return reinterpret_cast<VecH>(_mm256_castsi256_si128(packed));
#else
  return __builtin_convertvector(r, VecH);
#endif
}
inline VecH narrow_bf16(Vec v) {
#if defined(SIMD_AVX512)  // the instruction turns subnormals into zero, so they take the long way
  const __m512 x = reinterpret_cast<__m512>(v);
  if (_mm512_fpclass_ps_mask(x, 0x20) != 0) [[unlikely]]
    return narrow_bf16_exact(v);
  return reinterpret_cast<VecH>(_mm512_cvtneps_pbh(x));
#else
  return narrow_bf16_exact(v);
#endif
}
inline Vec widen_f16(VecH h) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(h)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(h)));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) {
    f16 x;
    x.bits = h[i];
    v[i] = static_cast<float>(x);
  }
  return v;
#endif
}
inline VecH narrow_f16(Vec v) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<VecH>(
      _mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<VecH>(
      _mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
#else
  VecH h;
  for (int i = 0; i < kLanes; ++i) h[i] = f16(v[i]).bits;
  return h;
#endif
}

// Loads and stores; no alignment is asked for. The forms with n touch the first n lanes only, 0 <=
// n <= kLanes; lanes that are not loaded are 0.
inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline VecI load(const std::int32_t* p) {
  VecI v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline VecH load_half(const void* p) {
  VecH h;
  std::memcpy(&h, p, sizeof h);
  return h;
}
inline Vec load(const bf16* p) { return widen_bf16(load_half(p)); }
inline Vec load(const f16* p) { return widen_f16(load_half(p)); }
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline void store(std::int32_t* p, VecI v) { std::memcpy(p, &v, sizeof v); }
inline void store_half(void* p, VecH h) { std::memcpy(p, &h, sizeof h); }
inline void store(bf16* p, Vec v) { store_half(p, narrow_bf16(v)); }
inline void store(f16* p, Vec v) { store_half(p, narrow_f16(v)); }

#if defined(SIMD_AVX512)
inline __mmask16 lane_mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline Vec load(const float* p, int n) {
  return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(lane_mask(n), p));
}
inline VecI load(const std::int32_t* p, int n) {
  return reinterpret_cast<VecI>(_mm512_maskz_loadu_epi32(lane_mask(n), p));
}
inline VecH load_half(const void* p, int n) {
  return reinterpret_cast<VecH>(_mm256_maskz_loadu_epi16(lane_mask(n), p));
}
inline void store(float* p, Vec v, int n) {
  _mm512_mask_storeu_ps(p, lane_mask(n), reinterpret_cast<__m512>(v));
}
inline void store_half(void* p, VecH h, int n) {
  _mm256_mask_storeu_epi16(p, lane_mask(n), reinterpret_cast<__m256i>(h));
}
#else
inline Vec load(const float* p, int n) {
  Vec v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline VecI load(const std::int32_t* p, int n) {
  VecI v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline VecH load_half(const void* p, int n) {
  VecH h{};
  std::memcpy(&h, p, static_cast<std::size_t>(n) * 2);
  return h;
}
inline void store(float* p, Vec v, int n) { std::memcpy(p, &v, static_cast<std::size_t>(n) * 4); }
inline void store_half(void* p, VecH h, int n) {
  std::memcpy(p, &h, static_cast<std::size_t>(n) * 2);
}
#endif
inline Vec load(const bf16* p, int n) { return widen_bf16(load_half(p, n)); }
inline Vec load(const f16* p, int n) { return widen_f16(load_half(p, n)); }
inline void store(bf16* p, Vec v, int n) { store_half(p, narrow_bf16(v), n); }
inline void store(f16* p, Vec v, int n) { store_half(p, narrow_f16(v), n); }

// Transposes kLanes vectors as a square of 32-bit words, by exchanging the off-diagonal halves of
// ever smaller squares.
template <int step, std::size_t... lane>
inline void exchange(Vec& a, Vec& b, std::index_sequence<lane...>) {
  const Vec low = __builtin_shufflevector(a, b, (lane & step ? kLanes + lane - step : lane)...);
  b = __builtin_shufflevector(a, b, (lane & step ? kLanes + lane : lane + step)...);
  a = low;
}
template <int step>
inline void transpose_step(Vec (&v)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    if (!(i & step)) exchange<step>(v[i], v[i + step], std::make_index_sequence<kLanes>{});
}
inline void transpose(Vec (&v)[kLanes]) {
  if constexpr (kLanes > 8) transpose_step<8>(v);
  if constexpr (kLanes > 4) transpose_step<4>(v);
  transpose_step<2>(v);
  transpose_step<1>(v);
}

// Calls f(i, n) for each group of n <= kLanes elements of [0, count). For full groups n is of type
// AllLanes, which picks the plain loads and stores, so that both cases share one body:
//   for_each_vec(count, [&](auto i, auto n) { store(y + i, load(x + i, n), n); });
struct AllLanes {
  constexpr operator int() const { return kLanes; }
};
template <class T>
inline auto load(const T* p, AllLanes) {
  return load(p);
}
inline VecH load_half(const void* p, AllLanes) { return load_half(p); }
template <class T>
inline void store(T* p, Vec v, AllLanes) {
  store(p, v);
}
template <class F>
inline __attribute__((always_inline)) void for_each_vec(std::int64_t count, F&& f) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, AllLanes{});
  if (i < count) f(i, static_cast<int>(count - i));
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
