// int8 products of many rows for AVX2. Part of gemm_avx2.cpp.
//
// A tile is 6 x 16. The machine multiplies unsigned by signed bytes and adds pairs into 16 bits, so
// codes up to 127 go in as they are; of larger ones the magnitude goes in and the sign is moved to
// x. Where all words of a part of a group fit into 16 bits (codes of four bits or fewer), a word
// costs two instructions, else three. Sums leave the registers once per group.
#pragma once
#include "backend/cpu/kernels/gemm_runs_x86.h"

namespace supersonic::cpu {
namespace {

// How products of a word of codes and a word of x are added up.
enum class Adds { in_16_bits, in_32_bits, magnitudes };

template <Adds adds>
inline __m256i add_word(__m256i sum, __m256i w, __m256i magnitude, __m256i x) {
  if constexpr (adds == Adds::in_16_bits) return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
  const __m256i pairs = adds == Adds::magnitudes
                            ? _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w))
                            : _mm256_maddubs_epi16(w, x);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// One group of 32 (as kParts sums of 32 / kParts): dot products in registers, then tile += scale *
// dots [+ min * sum].
template <int R, int V, int kParts, bool kMin, Adds adds>
inline void int8_group(int zero, const std::uint8_t* x, const std::uint8_t* w, float* tile) {
  const auto* x_scale = reinterpret_cast<const float*>(x + R * 32);
  const auto* x_sum = reinterpret_cast<const std::int32_t*>(x_scale + R) + (kParts == 2 ? R : 0);
  const auto* scale = reinterpret_cast<const float*>(w + V * 8 * 32);
#pragma GCC unroll 2
  for (int part = 0; part < kParts; ++part) {
    __m256i acc[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) acc[r][v] = _mm256_setzero_si256();
    for (int q = part * 8 / kParts; q < (part + 1) * 8 / kParts; ++q) {
      __m256i b[V], magnitude[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        b[v] = load256(w + (q * V + v) * 32);
        if constexpr (adds == Adds::magnitudes) b[v] = _mm256_xor_si256(b[v], all8(-128));
        magnitude[v] = adds == Adds::magnitudes ? _mm256_abs_epi8(b[v]) : b[v];
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m256i a = _mm256_set1_epi32(static_cast<int>(load32(x + (q * R + r) * 4)));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[r][v] = add_word<adds>(acc[r][v], b[v], magnitude[v], a);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::int32_t sum = x_sum[part * R + r];
      const __m256i off = _mm256_set1_epi32(kMin || adds == Adds::magnitudes ? 0 : -zero * sum);
      const __m256 s = _mm256_set1_ps(x_scale[r]);
      const __m256 total = _mm256_set1_ps(x_scale[r] * static_cast<float>(sum));
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        float* y = tile + r * kWidth + v * 8;
        const __m256i dots = adds == Adds::in_16_bits
                                 ? _mm256_madd_epi16(acc[r][v], _mm256_set1_epi16(1))
                                 : acc[r][v];
        const __m256 scales = _mm256_mul_ps(s, _mm256_loadu_ps(scale + (part * V + v) * 8));
        __m256 value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(dots, off)), scales,
                                       _mm256_loadu_ps(y));
        if constexpr (kMin)
          value =
              _mm256_fmadd_ps(total, _mm256_loadu_ps(scale + ((kParts + part) * V + v) * 8), value);
        _mm256_storeu_ps(y, value);
      }
    }
  }
}

template <int R, int V, int kParts, bool kMin>
inline void int8_groups(Affine a, std::int64_t groups, const std::uint8_t* x, const std::uint8_t* w,
                        float* tile) {
  constexpr int w_bytes = V * 8 * (32 + 4 * kParts * (kMin ? 2 : 1));
  const bool short_sums = a.top * 127 * 2 * (8 / kParts) <= INT16_MAX;
  for (std::int64_t g = 0; g < groups; ++g, x += int8_group_bytes(R), w += w_bytes) {
    if (short_sums)
      int8_group<R, V, kParts, kMin, Adds::in_16_bits>(a.zero, x, w, tile);
    else if (a.top <= 127)
      int8_group<R, V, kParts, kMin, Adds::in_32_bits>(a.zero, x, w, tile);
    else
      int8_group<R, V, kParts, kMin, Adds::magnitudes>(a.zero, x, w, tile);
  }
}

template <int R, int V>
struct TileInt8 {
  static void run(Affine a, std::int64_t groups, const std::uint8_t* x, const std::uint8_t* w,
                  float* tile, bool add) {
    if (!add)
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
          _mm256_storeu_ps(tile + r * kWidth + v * 8, _mm256_setzero_ps());
    if (a.halves && a.has_min)
      int8_groups<R, V, 2, true>(a, groups, x, w, tile);
    else if (a.halves)
      int8_groups<R, V, 2, false>(a, groups, x, w, tile);
    else if (a.has_min)
      int8_groups<R, V, 1, true>(a, groups, x, w, tile);
    else
      int8_groups<R, V, 1, false>(a, groups, x, w, tile);
  }
};
void product_int8(Affine a, int rows, int width, std::int64_t groups, const std::uint8_t* x,
                  const std::uint8_t* w, float* tile, bool add) {
  with_rows<TileInt8>(rows, width < kWidth, a, groups, x, w, tile, add);
}

}  // namespace
}  // namespace supersonic::cpu
