// The inner loops for AVX-512 with VNNI and BF16: sixteen fp32 lanes, a 14 x 32 tile in 28 of 32
// registers.
//
// Per step of a bf16 or int8 tile two loads and fourteen broadcasts feed 28 dot products, so the
// multipliers are the limit (one 512-bit dot product a cycle on Zen 4) while W streams from L2 at
// 128 bytes in 28 cycles. int8 sums leave the registers once per group of 32, through a conversion,
// a scale and an fp32 tile in L1: 56 to 84 more operations on 224.
#if defined(__x86_64__)
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#define GEMM_LANES 16
#define GEMM_ROWS 14
#define GEMM_VECTORS 2
#include "backend/cpu/kernels/gemm_codec_avx512.h"
#include "backend/cpu/kernels/gemm_gemv_avx512.h"

namespace supersonic::cpu {
namespace {

// ---- bf16
// -------------------------------------------------------------------------------------------------------------

template <int R, int V>
struct TileBf16 {
  static void run(std::int64_t steps, const std::uint32_t* x, const std::uint32_t* w, float* tile,
                  bool add) {
    __m512 acc[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        acc[r][v] = add ? _mm512_loadu_ps(tile + r * kWidth + v * 16) : _mm512_setzero_ps();
    for (std::int64_t k = 0; k < steps; ++k, x += R, w += V * 16) {
      __m512bh b[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) b[v] = (__m512bh)_mm512_loadu_si512(w + v * 16);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto a = (__m512bh)_mm512_set1_epi32(static_cast<int>(x[r]));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], b[v], a);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) _mm512_storeu_ps(tile + r * kWidth + v * 16, acc[r][v]);
  }
};
void product_bf16(int rows, int width, std::int64_t steps, const std::uint32_t* x,
                  const std::uint32_t* w, float* tile, bool add) {
  with_rows<TileBf16>(rows, width < kWidth, steps, x, w, tile, add);
}

// ---- int8
// -------------------------------------------------------------------------------------------------------------

// One group of 32 (as kParts sums of 32 / kParts): dot products in registers, then tile += scale *
// dots [+ min * sum].
template <int R, int V, int kParts, bool kMin>
inline void int8_group(int zero, const std::uint8_t* x, const std::uint8_t* w, float* tile) {
  const auto* x_scale = reinterpret_cast<const float*>(x + R * 32);
  const auto* x_sum = reinterpret_cast<const std::int32_t*>(x_scale + R) + (kParts == 2 ? R : 0);
  alignas(64) float scaled_halves[16];
  const float* scaled_sum = kParts == 2 ? scaled_halves : x_scale + 4 * R;
  const auto* scale = reinterpret_cast<const float*>(w + V * 16 * 32);
#pragma GCC unroll 2
  for (int part = 0; part < kParts; ++part) {
    __v16si acc[R][V];  // the type of the instruction's operands, or GCC keeps them in memory
    alignas(64) std::int32_t start[16];
    if constexpr (!kMin) {
      const __m512i sums = _mm512_maskz_loadu_epi32(first_lanes(R), x_sum + part * R);
      _mm512_store_si512(start, _mm512_mullo_epi32(sums, _mm512_set1_epi32(-zero)));
    } else if constexpr (kParts == 2) {
      const __m512i sums = _mm512_maskz_loadu_epi32(first_lanes(R), x_sum + part * R);
      const __m512 scales = _mm512_maskz_loadu_ps(first_lanes(R), x_scale);
      _mm512_store_ps(scaled_halves, _mm512_mul_ps(scales, _mm512_cvtepi32_ps(sums)));
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        acc[r][v] = kMin ? __v16si{} : (__v16si)_mm512_set1_epi32(start[r]);
    for (int q = part * 8 / kParts; q < (part + 1) * 8 / kParts; ++q) {
      __m512i b[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) b[v] = _mm512_loadu_si512(w + (q * V + v) * 64);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m512i a = _mm512_set1_epi32(static_cast<int>(load32(x + (q * R + r) * 4)));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v)
          acc[r][v] = (__v16si)_mm512_dpbusd_epi32((__m512i)acc[r][v], b[v], a);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512 s = _mm512_set1_ps(x_scale[r]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        float* y = tile + r * kWidth + v * 16;
        const __m512 both_scales = _mm512_mul_ps(s, _mm512_loadu_ps(scale + (part * V + v) * 16));
        __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)acc[r][v]), both_scales,
                                     _mm512_loadu_ps(y));
        if constexpr (kMin)
          sum = _mm512_fmadd_ps(_mm512_set1_ps(scaled_sum[r]),
                                _mm512_loadu_ps(scale + ((kParts + part) * V + v) * 16), sum);
        _mm512_storeu_ps(y, sum);
      }
    }
  }
}

template <int R, int V>
struct TileInt8 {
  static void run(Affine a, std::int64_t groups, const std::uint8_t* x, const std::uint8_t* w,
                  float* tile, bool add) {
    if (!add)
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
          _mm512_storeu_ps(tile + r * kWidth + v * 16, _mm512_setzero_ps());
    const int w_bytes = V * 16 * (32 + 4 * (a.halves ? 2 : 1) * (a.has_min ? 2 : 1));
    for (std::int64_t g = 0; g < groups; ++g, x += int8_group_bytes(R), w += w_bytes) {
      if (a.halves && a.has_min)
        int8_group<R, V, 2, true>(0, x, w, tile);
      else if (a.halves)
        int8_group<R, V, 2, false>(a.zero, x, w, tile);
      else if (a.has_min)
        int8_group<R, V, 1, true>(0, x, w, tile);
      else
        int8_group<R, V, 1, false>(a.zero, x, w, tile);
    }
  }
};
void product_int8(Affine a, int rows, int width, std::int64_t groups, const std::uint8_t* x,
                  const std::uint8_t* w, float* tile, bool add) {
  with_rows<TileInt8>(rows, width < kWidth, a, groups, x, w, tile, add);
}

// ---- packing
// ----------------------------------------------------------------------------------------------------------

// 16 x 16 words: out[k][r] = in[r][k].
inline void transpose16(__m512i* v) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // Now v[4 i + j], 128-bit lane l, holds step 4 l + j of rows 4 i .. 4 i + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x88),
                  b = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xdd),
                  d = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = t[i];
}

void transpose(const std::uint32_t* in, std::int64_t ld, int rows, std::int64_t steps,
               std::uint32_t* out, int out_stride) {
  const __mmask16 lanes = first_lanes(rows);
  for (std::int64_t k = 0; k < steps; k += 16) {
    const __mmask16 valid = first_lanes(steps - k);
    __m512i v[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r)
      v[r] = r < rows ? _mm512_maskz_loadu_epi32(valid, in + r * ld + k) : _mm512_setzero_si512();
    transpose16(v);
    const int n = steps - k < 16 ? static_cast<int>(steps - k) : 16;
    if (n == 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        _mm512_mask_storeu_epi32(out + (k + i) * out_stride, lanes, v[i]);
    } else {
      for (int i = 0; i < n; ++i) _mm512_mask_storeu_epi32(out + (k + i) * out_stride, lanes, v[i]);
    }
  }
}

void interleave(const std::uint8_t* in, std::int64_t ld, std::int64_t rows, int count,
                std::uint32_t* out, int width) {
  for (std::int64_t k = 0; k < rows; k += 2, in += 4 * ld, out += width)
    for (int c = 0; c < width; c += 16) {
      const __mmask16 valid = first_lanes(count > c ? count - c : 0), kept = first_lanes(width - c);
      const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(valid, in + c * 2));
      const __m256i second = k + 1 < rows ? _mm256_maskz_loadu_epi16(valid, in + 2 * ld + c * 2)
                                          : _mm256_setzero_si256();
      _mm512_mask_storeu_epi32(
          out + c, kept, _mm512_or_si512(a, _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16)));
    }
}

// ---- results
// ----------------------------------------------------------------------------------------------------------

void store(const float* tile, std::int64_t tile_ld, int rows, int cols, float alpha,
           bool accumulate, Codec type, void* y, std::int64_t ldy) {
  if (type == Codec::f16 || (type == Codec::bf16 && accumulate))
    return generic_store(tile, tile_ld, rows, cols, alpha, accumulate, type, y, ldy);
  const __m512 factor = _mm512_set1_ps(alpha);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; c += 16) {
      const __mmask16 lanes = first_lanes(cols - c);
      const __m512 v = _mm512_mul_ps(factor, _mm512_maskz_loadu_ps(lanes, tile + r * tile_ld + c));
      if (type == Codec::bf16) {
        auto* to = static_cast<std::uint8_t*>(y) + (r * ldy + c) * 2;
        _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(v));
      } else {
        auto* to = static_cast<std::uint8_t*>(y) + (r * ldy + c) * 4;
        _mm512_mask_storeu_ps(to, lanes,
                              accumulate ? _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, to), v) : v);
      }
    }
}

}  // namespace

const Inner& inner_avx512() {
  static constexpr Inner inner = [] {
    Inner i = generic_inner<to_f32_512>();
    i.native_bf16 = true;
    i.to_bf16 = to_bf16_512;
    i.transpose = transpose;
    i.interleave = interleave;
    i.product_bf16 = product_bf16;
    i.product_int8 = product_int8;
    i.pack_int8 = pack_int8;
    i.store = store;
    i.gemv_f32 = gemv_f32_512;
    i.gemv_int8 = gemv_int8_512;
    return i;
  }();
  return inner;
}

}  // namespace supersonic::cpu
#endif
