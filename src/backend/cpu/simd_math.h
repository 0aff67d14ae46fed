// Vector math on simd.h: exp, exp2, log, log1p, sin, cos, tanh, sigmoid, erf. Polynomials are
// interpolants at Chebyshev nodes, computed in 40 digits and rounded to float. Infinities, NaN and
// subnormals behave as in libm. The largest error over the stated range, in units in the last
// place, is checked against double libm by tests/backend/simd_test.cpp:
//   exp 2, exp2 2, log 2, log1p 3, sin and cos 2 (or 1e-7 absolute near their zeros), tanh 3,
//   sigmoid 3, erf 3.
#pragma once
#include <limits>

#include "backend/cpu/simd.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Nearest integer, ties to even, for |v| < 2^22; as a float, and with its integer value.
struct Rounded {
  Vec value;
  VecI integer;
};
inline Rounded round_small(Vec v) {
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: the sum's low bits hold the integer
  const Vec sum = v + magic;
  return {sum - magic, bits(sum) - 0x4b400000};
}

// v * 2^n for -300 <= n <= 300, right also where the result is subnormal, zero or infinite.
inline Vec scale_by_power(Vec v, Rounded n) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<Vec>(
      _mm512_scalef_ps(reinterpret_cast<__m512>(v), reinterpret_cast<__m512>(n.value)));
#else
  const VecI half = n.integer >> 1, rest = n.integer - half;
  return v * from_bits((half + 127) << 23) * from_bits((rest + 127) << 23);
#endif
}

inline Vec exp2(Vec x) {
  x = max(set(-160.0f), min(set(140.0f), x));
  const Rounded n = round_small(x);
  const Vec r = x - n.value;
  Vec p = set(0x1.44138ap-13f);
  p = fma(p, r, 0x1.5f089p-10f);
  p = fma(p, r, 0x1.3b2a54p-7f);
  p = fma(p, r, 0x1.c6af6cp-5f);
  p = fma(p, r, 0x1.ebfbep-3f);
  p = fma(p, r, 0x1.62e43p-1f);
  return scale_by_power(fma(p, r, 1.0f), n);
}

inline Vec exp(Vec x) {
  x = max(set(-110.0f), min(set(95.0f), x));
  const Rounded n = round_small(x * 0x1.715476p+0f);
  Vec r = fma(n.value, set(-0x1.62e4p-1f), x);  // ln 2 in two parts, the first of 15 bits
  r = fma(n.value, set(-0x1.7f7d1cp-20f), r);
  Vec p = set(0x1.6d127p-10f);
  p = fma(p, r, 0x1.120cd4p-7f);
  p = fma(p, r, 0x1.555518p-5f);
  p = fma(p, r, 0x1.5554dcp-3f);
  p = fma(p, r, 0.5f);
  p = fma(p, r * r, r) + 1.0f;
  return scale_by_power(p, n);
}

inline Vec log(Vec x) {
  const VecI tiny = x < 0x1p-126f;
  const Vec y = select(tiny, x * 0x1p23f, x);
  // y = 2^e * m with m in [sqrt(1/2), sqrt(2))
  // Unsigned: of negative numbers, whose result is NaN below, the difference does not fit.
  const VecI shifted = reinterpret_cast<VecI>(reinterpret_cast<VecU>(y) - 0x3f3504f3u);
  const VecI e = (shifted >> 23) - select(tiny, set_int(23), VecI{});
  const Vec f = from_bits((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f, ef = to_float(e);
  Vec p = set(0x1.1d8ea6p-4f);
  p = fma(p, f, -0x1.d635bcp-4f);
  p = fma(p, f, 0x1.dea282p-4f);
  p = fma(p, f, -0x1.fcf4c6p-4f);
  p = fma(p, f, 0x1.23d21ap-3f);
  p = fma(p, f, -0x1.555b4ap-3f);
  p = fma(p, f, 0x1.999d5ap-3f);
  p = fma(p, f, -0x1.fffffcp-3f);
  p = fma(p, f, 0x1.555554p-2f);
  const Vec f2 = f * f;
  Vec r = fma(ef, set(0x1.7f7d1cp-20f), p * f * f2);
  r = fma(f2, set(-0.5f), r) + f;
  r = fma(ef, set(0x1.62e4p-1f), r);
  r = select(x == kInfinity, x, r);
  r = select(x == 0.0f, set(-kInfinity), r);
  return select((x < 0.0f) | (x != x), set(std::numeric_limits<float>::quiet_NaN()), r);
}

inline Vec log1p(Vec x) {
  // log(1 + x) = log(u) * x / (u - 1): the rounding of u = 1 + x cancels.
  const Vec u = x + 1.0f, d = u - 1.0f, y = log(u) * (x / d);
  return select((d == 0.0f) | (u == kInfinity), x, y);
}

// Sine and cosine together. Reduction by pi/2 in five parts is exact enough for |x| <= 12000;
// larger ones, rare, go to libm lane by lane.
struct SinCos {
  Vec sin, cos;
};
inline SinCos sin_cos(Vec x) {
  const Rounded n = round_small(min(set(1e6f), max(set(-1e6f), x * 0x1.45f306p-1f)));
  Vec r = fma(n.value, set(-0x1.92p+0f), x);
  r = fma(n.value, set(-0x1.fb4p-12f), r);
  r = fma(n.value, set(-0x1.444p-24f), r);
  r = fma(n.value, set(-0x1.68cp-39f), r);
  const Vec z = r * r;
  Vec s = set(0x1.6dbb5cp-19f);
  s = fma(s, z, -0x1.a013ap-13f);
  s = fma(s, z, 0x1.11110ep-7f);
  s = fma(s, z, -0x1.555556p-3f);
  s = fma(s, z * r, r);
  Vec c = set(-0x1.252284p-22f);
  c = fma(c, z, 0x1.a015bep-16f);
  c = fma(c, z, -0x1.6c16cp-10f);
  c = fma(c, z, 0x1.555556p-5f);
  c = fma(z * z, c, fma(z, set(-0.5f), set(1.0f)));
  const VecI odd = (n.integer & 1) != 0;
  const Vec a = select(odd, c, s), b = select(odd, s, c);
  SinCos out{from_bits(bits(a) ^ ((n.integer & 2) << 30)),
             from_bits(bits(b) ^ (((n.integer + 1) & 2) << 30))};
  out.sin = select(x == 0.0f, x, out.sin);  // keeps the sign of zero
  const VecI large = ~(abs(x) <= 12000.0f);
  for (int i = 0; i < kLanes; ++i)
    if (large[i]) [[unlikely]]
      out.sin[i] = __builtin_sinf(x[i]), out.cos[i] = __builtin_cosf(x[i]);
  return out;
}
inline Vec sin(Vec x) { return sin_cos(x).sin; }
inline Vec cos(Vec x) { return sin_cos(x).cos; }

inline Vec tanh(Vec x) {
  const Vec a = abs(x), z = x * x;
  Vec p = set(0x1.2c83cp-9f);
  p = fma(p, z, -0x1.116a16p-7f);
  p = fma(p, z, 0x1.64a976p-6f);
  p = fma(p, z, -0x1.ba08c4p-5f);
  p = fma(p, z, 0x1.1110eap-3f);
  p = fma(p, z, -0x1.555556p-2f);
  const Vec small = fma(p, z * x, x);
  const Vec large = copy_sign(1.0f - 2.0f / (exp(min(set(20.0f), a + a)) + 1.0f), x);
  return select(a < 0.625f, small, large);
}

inline Vec sigmoid(Vec x) {
  const Vec e = exp(
      from_bits(bits(x) | static_cast<std::int32_t>(0x80000000u)));  // exp(-|x|) never overflows
  return select(x < 0.0f, e, set(1.0f)) / (e + 1.0f);
}

inline Vec erf(Vec x) {
  const Vec a = abs(x), z = x * x;
  Vec p = set(-0x1.445f48p-17f);
  p = fma(p, z, 0x1.d8875p-14f);
  p = fma(p, z, -0x1.bccf66p-11f);
  p = fma(p, z, 0x1.562a6p-8f);
  p = fma(p, z, -0x1.b829c8p-6f);
  p = fma(p, z, 0x1.ce2f08p-4f);
  p = fma(p, z, -0x1.812746p-2f);
  p = fma(p, z, 0x1.20dd76p+0f);
  const Vec t = min(set(4.0f), a);
  Vec q = set(0x1.b7783p-20f);  // log(erfc(t)) on [1, 4]; erf is 1 beyond
  q = fma(q, t, -0x1.825ce4p-15f);
  q = fma(q, t, 0x1.38e5e6p-11f);
  q = fma(q, t, -0x1.37ecc6p-8f);
  q = fma(q, t, 0x1.b0e246p-6f);
  q = fma(q, t, -0x1.c2e356p-4f);
  q = fma(q, t, -0x1.437eb4p-1f);
  q = fma(q, t, -0x1.2156fap+0f);
  q = fma(q, t, 0x1.4fb068p-12f);
  return select(a < 1.0f, p * x, copy_sign(1.0f - exp(q), x));
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
