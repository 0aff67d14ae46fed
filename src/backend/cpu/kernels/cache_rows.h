// How attention reads keys and values: as floats, kLanes at a time, whatever they are stored as.
//
// A cache row is a row of KV: a scalar type, an FP8 code, or a block of 32 8-bit codes with their
// scale (Q8_0). Positions and strides are counted in numbers; kNumbers<KV> of them are one KV. Code
// for Q8_0 asks for whole blocks (head sizes that are multiples of 32), so that no vector crosses
// one.
#pragma once
#include <type_traits>

#include "backend/cpu/simd.h"
#include "formats/fp8.h"
#include "formats/q8_0.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

using Fp8 = formats::Fp8::Block;
using Q8 = formats::Q8_0::Block;

template <class KV>
constexpr std::int64_t kNumbers = std::is_same_v<KV, Q8> ? formats::Q8_0::weights : 1;
template <class KV>
constexpr bool kCoded = std::is_same_v<KV, Fp8> || std::is_same_v<KV, Q8>;

// kLanes signed bytes as whole numbers.
inline VecI load_bytes(const void* p) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<VecI>(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<VecI>(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
#else
  VecI v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<const std::int8_t*>(p)[i];
  return v;
#endif
}

// A number is so many of what load_units() gives; Q8_0 has its scale for that.
#if defined(SIMD_AVX512) || defined(SIMD_AVX2)
template <class KV>
constexpr float kUnit = std::is_same_v<KV, Fp8> ? 0x1p8f : 1.0f;

// FP8 as binary16 with the same bits of exponent and mantissa, and so 2^-8 times as large; the
// machine's own conversion then takes care of subnormals.
inline Vec load_fp8(const Fp8* p) {
#if defined(SIMD_AVX512)
  typedef std::int16_t Words __attribute__((vector_size(32)));
  Words w = reinterpret_cast<Words>(
      _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  typedef std::int16_t Words __attribute__((vector_size(16)));
  Words w = reinterpret_cast<Words>(
      _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#endif
  w = (w << 7) & static_cast<std::int16_t>(0xbfff);
  w = (w & 0x3f80) == 0x3f80 ? Words{} + 0x7e00 : w;
  return widen_f16(reinterpret_cast<VecH>(w));
}
#else
template <class KV>
constexpr float kUnit = 1.0f;

inline Vec load_fp8(const Fp8* p) {
  const VecI code = load_bytes(p), m = code & 0x7f;
  const Vec normal = from_bits((m << 20) + (120 << 23));
  const Vec v = select(m < 8, to_float(m) * 0x1p-9f,
                       select(m == 0x7f, from_bits(set_int(0x7fc00000)), normal));
  return copy_sign(v, from_bits(code));
}
#endif
inline Vec load_fp8(const Fp8* p, AllLanes) { return load_fp8(p); }
inline Vec load_fp8(const Fp8* p, int n) {
  Fp8 whole[kLanes] = {};
  std::memcpy(whole, p, static_cast<std::size_t>(n));
  return load_fp8(whole);
}

inline Vec scale_of(const Q8& block) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(
      _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<std::int16_t>(block.d.bits))));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<Vec>(
      _mm256_cvtph_ps(_mm_set1_epi16(static_cast<std::int16_t>(block.d.bits))));
#else
  return set(static_cast<float>(block.d));
#endif
}

// Elements [e, e + n) of a row, without what all of them, or all of a block, are multiplied by; e
// is a multiple of kLanes.
template <class KV, class N>
inline Vec load_units(const KV* row, std::int64_t e, N n) {
  if constexpr (std::is_same_v<KV, Q8>) {
    return to_float(load_bytes(row[e / kNumbers<Q8>].qs + e % kNumbers<Q8>));
  } else if constexpr (std::is_same_v<KV, Fp8>) {
    return load_fp8(row + e, n);
  } else {
    return load(row + e, n);
  }
}

template <class KV, class N>
inline Vec load_numbers(const KV* row, std::int64_t e, N n) {
  const Vec units = load_units(row, e, n);
  if constexpr (std::is_same_v<KV, Q8>)
    return units * scale_of(row[e / kNumbers<Q8>]);
  else
    return kUnit<KV> == 1.0f ? units : units * kUnit<KV>;
}

// Rows of coded keys or values as `T` (float, or bf16), out (rows, d).
template <class KV, class T>
inline void decode_rows(const KV* rows, std::int64_t count, std::int64_t stride, std::int64_t d,
                        T* out) {
  for (std::int64_t r = 0; r < count; ++r) {
    const KV* row = rows + r * (stride / kNumbers<KV>);
    for_each_vec(d, [&](auto e, auto n) { store(out + r * d + e, load_numbers(row, e, n), n); });
  }
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
