// The inner loops for AVX2 with FMA: eight fp32 lanes, a 6 x 16 tile in 12 of 16 registers.
#if defined(__x86_64__)
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define GEMM_LANES 8
#define GEMM_ROWS 6
#define GEMM_VECTORS 2
#include "backend/cpu/kernels/gemm_int8_avx2.h"

namespace supersonic::cpu {
namespace {

// 32 weights as floats. Without a minimum the zero leaves as a whole number, so that infinite
// scales and signs of zeros come out as in the formats' own decoders.
template <Codec codec>
inline void group_f32(const Group32& g, float* out) {
  constexpr bool kSubtract = !kHasMin<codec>;
  const __m256i codes = kSubtract ? _mm256_sub_epi8(g.codes, all8(zero_of(codec))) : g.codes;
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m128i half = h ? _mm256_extracti128_si256(codes, 1) : _mm256_castsi256_si128(codes);
    const __m256 scale = _mm256_set1_ps(g.scale[h]), min = _mm256_set1_ps(g.min[h]);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256 level = eight_bytes(i ? _mm_srli_si128(half, 8) : half);
      _mm256_storeu_ps(out + 16 * h + 8 * i, kSubtract ? _mm256_mul_ps(level, scale)
                                                       : _mm256_fmadd_ps(level, scale, min));
    }
  }
}

void to_f32(const Source& s, std::int64_t first, std::int64_t count, float* out) {
  const bool whole = first % 32 == 0 && count % 32 == 0;
  const bool known = whole && with_codec(s.codec, [&](auto tag) {
                       constexpr Codec codec = decltype(tag)::value;
                       Groups<codec> all(s.data);
                       for (std::int64_t i = 0; i < count / 32; ++i)
                         group_f32<codec>(all.at(first / 32 + i), out + 32 * i);
                     });
  if (!known) generic_to_f32(s, first, count, out);
}

// m activations as chunks of 4, 2 and 1: three versions of each loop instead of eight.
bool gemv_int8(const Source& w, std::int64_t n0, int count, const Int8Row* x, int m, float* out) {
  return with_codec(w.codec, [&](auto tag) {
    constexpr Codec codec = decltype(tag)::value;
    int done = 0;
    for (; m - done >= 4; done += 4) gemv_runs<codec, 4>(w, n0, count, x + done, out + done);
    for (; m - done >= 2; done += 2) gemv_runs<codec, 2>(w, n0, count, x + done, out + done);
    if (done < m) gemv_runs<codec, 1>(w, n0, count, x + done, out + done);
  });
}

}  // namespace

const Inner& inner_avx2() {
  static constexpr Inner inner = [] {
    Inner i = generic_inner<to_f32>();
    i.product_int8 = product_int8;
    i.pack_int8 = pack_int8;
    i.gemv_int8 = gemv_int8;
    return i;
  }();
  return inner;
}

}  // namespace supersonic::cpu
#endif
