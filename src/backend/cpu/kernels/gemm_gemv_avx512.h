// Few rows of activations for AVX-512: weights are read once, straight from the mapped file. Part of gemm_avx512.cpp.
//
// Limit: memory. At some 5 bytes a cycle and core a Q4_1 block of 32 weights may cost 4 cycles, so two blocks share one
// register. Rows are taken one after another: several at a time would share what is loaded of x, but break the stream that
// the hardware prefetcher follows, which costs up to twice the time. Offsets (minimum, or -zero * scale) go through the
// sums of x that were computed when x was quantized.
#pragma once
#include <immintrin.h>

#include "backend/cpu/kernels/gemm_codec_avx512.h"

namespace supersonic::cpu {
namespace {

// ---- blocks of 32 -----------------------------------------------------------------------------------------------------

// Blocks of a head and 16 bytes of nibbles: two of them share registers.
template <Codec codec>
constexpr bool kNibbleBlock =
    codec == Codec::q4_0 || codec == Codec::q4_1 || codec == Codec::iq4_nl || codec == Codec::mxfp4;

// Two neighbouring blocks' scales as {d0, o0, d1, o1}: o the minimum, or d again where the offset is -zero * d.
template <Codec codec>
inline __m128 pair_scales(const std::uint8_t* b) {
  constexpr int kBytes = kBlockBytes<codec>;
  if constexpr (kHasMin<codec>) {
    const __m128i h = _mm_insert_epi32(_mm_cvtsi32_si128(static_cast<int>(load32(b))), static_cast<int>(load32(b + kBytes)), 1);
    return _mm_cvtph_ps(h);
  } else if constexpr (codec == Codec::mxfp4) {
    const float d0 = e8m0_half(b[0]), d1 = e8m0_half(b[kBytes]);
    return _mm_setr_ps(d0, d0, d1, d1);
  } else {
    const std::uint64_t h = load16(b) * std::uint64_t{0x10001} | (load16(b + kBytes) * std::uint64_t{0x10001}) << 32;
    return _mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<long long>(h)));
  }
}

// Codes of two neighbouring blocks times x, as sums in {block 0 x 4, block 1 x 4}.
// x: {0..15, 32..47} and {16..31, 48..63} for nibble formats, else {0..31} and {32..63}.
template <Codec codec>
inline __m256i pair_dots(__m256i w0, __m256i w1, __m256i x0, __m256i x1) {
  const __m256i zero = _mm256_setzero_si256();
  if constexpr (kNibbleBlock<codec>) {
    return _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(zero, w0, x0), w1, x1);
  } else {
    const __m256i a = _mm256_dpbusd_epi32(zero, w0, x0), b = _mm256_dpbusd_epi32(zero, w1, x1);
    // Fold each to four sums and put them side by side.
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
  }
}

template <Codec codec, int R, int M>
inline void gemv_block32(const std::uint8_t* data, std::int64_t row_bytes, std::int64_t groups, const Int8Row* x, float* out) {
  constexpr int kBytes = kBlockBytes<codec>;
  constexpr bool kNibbles = kNibbleBlock<codec>;
  __m256 acc[R][M];
  __m128 offsets[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[r][m] = _mm256_setzero_ps(), offsets[r][m] = _mm_setzero_ps();
  const __m256i spread = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2), low = _mm256_set1_epi8(15);
  std::int64_t g = 0;
  for (; g + 2 <= groups; g += 2, data += 2 * kBytes) {
    __m256i x0[M], x1[M];
    __m128 xs[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const std::int8_t* c = x[m].codes + g * 32;
      if constexpr (kNibbles) {
        x0[m] = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(c)), load128(c + 32), 1);
        x1[m] = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(c + 16)), load128(c + 48), 1);
      } else {
        x0[m] = load256(c);
        x1[m] = load256(c + 32);
      }
      xs[m] = _mm_loadu_ps(x[m].scale_sum + g * 2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::uint8_t* b = data + r * row_bytes;
      ahead(b);
      __m256i w0, w1;
      if constexpr (kNibbles) {
        constexpr int kHead = kBytes - 16;
        const __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(b + kHead)), load128(b + kBytes + kHead), 1);
        w0 = nibble_codes<codec>(_mm256_and_si256(q, low));
        w1 = nibble_codes<codec>(_mm256_and_si256(_mm256_srli_epi16(q, 4), low));
      } else {
        w0 = block_codes<codec>(b, 0);
        w1 = block_codes<codec>(b + kBytes, 0);
      }
      const __m128 scales = pair_scales<codec>(b);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const __m256 dots = _mm256_cvtepi32_ps(pair_dots<codec>(w0, w1, x0[m], x1[m]));
        const __m128 p = _mm_mul_ps(scales, xs[m]);
        offsets[r][m] = _mm_add_ps(offsets[r][m], p);
        acc[r][m] = _mm256_fmadd_ps(dots, _mm256_permutevar8x32_ps(_mm256_castps128_ps256(p), spread), acc[r][m]);
      }
    }
  }
  constexpr float kOffset = kHasMin<codec> ? 1 : -static_cast<float>(zero_of(codec));
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      float lanes[4];
      _mm_storeu_ps(lanes, offsets[r][m]);
      float total = sum8(acc[r][m]) + kOffset * (lanes[1] + lanes[3]);
      if (g < groups) {
        const std::uint8_t* b = data + r * row_bytes;
        const __m256i dots = _mm256_dpbusd_epi32(_mm256_setzero_si256(), block_codes<codec>(b, 0), load256(x[m].codes + g * 32));
        const float* s = x[m].scale_sum + g * 2;
        const float d = codec == Codec::mxfp4 ? e8m0_half(b[0]) : half_at(b);
        total += d * s[0] * sum8(_mm256_cvtepi32_ps(dots)) + (kHasMin<codec> ? half_at(b + 2) : kOffset * d) * s[1];
      }
      out[r * kVectorRows + m] += total;
    }
}

// ---- blocks of 256 ----------------------------------------------------------------------------------------------------

// Even and odd elements of 16 floats.
inline void split_pairs(const float* p, __m256& even, __m256& odd) {
  const __m512 all = _mm512_loadu_ps(p);
  even = _mm512_castps512_ps256(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0), all));
  odd = _mm512_castps512_ps256(_mm512_permutexvar_ps(_mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0), all));
}

// Q4_K, Q5_K: eight groups; 6-bit scales and minima unpacked four at a time in 32-bit words.
template <bool kFive, int R, int M>
inline void gemv_q45_k(const std::uint8_t* data, std::int64_t row_bytes, std::int64_t groups, const Int8Row* x, float* out) {
  constexpr int kBytes = kFive ? 176 : 144;
  __m256 acc[R][M][kSums<M>], mins[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) clear(acc[r][m]), mins[r][m] = _mm256_setzero_ps();
  const __m256i low = _mm256_set1_epi8(15);
  for (std::int64_t g = 0; g < groups; g += 8, data += kBytes) {
    __m256 x_scale[M], x_sum[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) split_pairs(x[m].scale_sum + g * 2, x_scale[m], x_sum[m]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::uint8_t* b = data + r * row_bytes;
      ahead(b);
      ahead(b + 64);
      if constexpr (kFive) ahead(b + 112);
      const std::uint32_t u0 = load32(b + 4), u1 = load32(b + 8), u2 = load32(b + 12);
      const std::uint64_t scales = (u0 & 0x3f3f3f3f) | std::uint64_t{(u2 & 0x0f0f0f0f) | (u0 >> 2 & 0x30303030)} << 32;
      const std::uint64_t minima = (u1 & 0x3f3f3f3f) | std::uint64_t{(u2 >> 4 & 0x0f0f0f0f) | (u1 >> 2 & 0x30303030)} << 32;
      const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(load32(b))));
      const __m256 w_scale = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(scales)))), _mm256_broadcastss_ps(d));
      const __m256 w_min = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(minima)))), _mm256_broadcastss_ps(_mm_movehdup_ps(d)));
      __m256 scale[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        scale[m] = _mm256_mul_ps(w_scale, x_scale[m]);
        mins[r][m] = _mm256_fmadd_ps(w_min, x_sum[m], mins[r][m]);
      }
      const __m256i fifth = kFive ? load256(b + 16) : low;
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        const __m256i q = load256(b + (kFive ? 48 : 16) + j / 2 * 32);
        __m256i w = _mm256_and_si256(j % 2 ? _mm256_srli_epi16(q, 4) : q, low);
        if constexpr (kFive) w = _mm256_mask_add_epi8(w, _mm256_test_epi8_mask(fifth, _mm256_set1_epi8(static_cast<char>(1 << j))), w, _mm256_set1_epi8(16));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          const __m256i dots = _mm256_dpbusd_epi32(_mm256_setzero_si256(), w, load256(x[m].codes + (g + j) * 32));
          acc[r][m][j % kSums<M>] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_permutevar8x32_ps(scale[m], _mm256_set1_epi32(j)), acc[r][m][j % kSums<M>]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) out[r * kVectorRows + m] += sum8(_mm256_sub_ps(added(acc[r][m]), mins[r][m]));
}

// Q6_K, Q3_K: sixteen scales, codes with zero 32 or 4.
template <Codec codec, int R, int M>
inline void gemv_halves(const std::uint8_t* data, std::int64_t row_bytes, std::int64_t groups, const Int8Row* x, float* out) {
  __m256 acc[R][M][kSums<M>];
  __m512 sums[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) clear(acc[r][m]), sums[r][m] = _mm512_setzero_ps();
  const __m512i even = _mm512_setr_epi32(0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14);
  for (std::int64_t g = 0; g < groups; g += 8, data += kBlockBytes<codec>) {
    __m512 x_scale[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) x_scale[m] = _mm512_permutexvar_ps(even, _mm512_loadu_ps(x[m].scale_sum + g * 2));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::uint8_t* b = data + r * row_bytes;
#pragma GCC unroll 4
      for (int i = 0; i < kBlockBytes<codec>; i += 64) ahead(b + i);
      const __m512 w_scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(halves_scales<codec>(b))),
                                           _mm512_set1_ps(half_at(b + kBlockBytes<codec> - 2)));
      __m512 scale[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        scale[m] = _mm512_mul_ps(w_scale, x_scale[m]);
        sums[r][m] = _mm512_fmadd_ps(w_scale, _mm512_loadu_ps(x[m].half_sums + g * 2), sums[r][m]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        const __m256i w = block_codes<codec>(b, j);
        const __m512i lanes = _mm512_castsi256_si512(_mm256_setr_epi32(2 * j, 2 * j, 2 * j, 2 * j, 2 * j + 1, 2 * j + 1, 2 * j + 1, 2 * j + 1));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          const __m256i dots = _mm256_dpbusd_epi32(_mm256_setzero_si256(), w, load256(x[m].codes + (g + j) * 32));
          acc[r][m][j % kSums<M>] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm512_castps512_ps256(_mm512_permutexvar_ps(lanes, scale[m])), acc[r][m][j % kSums<M>]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) out[r * kVectorRows + m] += sum8(added(acc[r][m])) - static_cast<float>(zero_of(codec)) * _mm512_reduce_add_ps(sums[r][m]);
}

// IQ4_XS: eight 6-bit scales, levels of eight bits with zero 128.
template <int R, int M>
inline void gemv_iq4_xs(const std::uint8_t* data, std::int64_t row_bytes, std::int64_t groups, const Int8Row* x, float* out) {
  __m256 acc[R][M][kSums<M>], sums[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) clear(acc[r][m]), sums[r][m] = _mm256_setzero_ps();
  const __m256i low_shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28), high_shifts = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
  for (std::int64_t g = 0; g < groups; g += 8, data += 136) {
    __m256 x_scale[M], x_sum[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) split_pairs(x[m].scale_sum + g * 2, x_scale[m], x_sum[m]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::uint8_t* b = data + r * row_bytes;
      ahead(b);
      ahead(b + 64);
      const __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(load32(b + 4))), low_shifts);
      const __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(load16(b + 2))), high_shifts);
      const __m256i s = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)), _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4));
      const __m256 w_scale = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(s, _mm256_set1_epi32(32))), _mm256_set1_ps(half_at(b)));
      __m256 scale[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        scale[m] = _mm256_mul_ps(w_scale, x_scale[m]);
        sums[r][m] = _mm256_fmadd_ps(w_scale, x_sum[m], sums[r][m]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        const __m256i w = nibble_codes<Codec::iq4_xs>(nibbles256(b + 8 + j * 16));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          const __m256i dots = _mm256_dpbusd_epi32(_mm256_setzero_si256(), w, load256(x[m].codes + (g + j) * 32));
          acc[r][m][j % kSums<M>] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_permutevar8x32_ps(scale[m], _mm256_set1_epi32(j)), acc[r][m][j % kSums<M>]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) out[r * kVectorRows + m] += sum8(added(acc[r][m])) - 128 * sum8(sums[r][m]);
}

// ---- dispatch ---------------------------------------------------------------------------------------------------------

template <Codec codec, int R, int M>
inline void gemv_rows(const std::uint8_t* data, std::int64_t row_bytes, std::int64_t groups, const Int8Row* x, float* out) {
  if constexpr (codec == Codec::q3_k || codec == Codec::q6_k)
    gemv_halves<codec, R, M>(data, row_bytes, groups, x, out);
  else if constexpr (codec == Codec::q4_k || codec == Codec::q5_k)
    gemv_q45_k<codec == Codec::q5_k, R, M>(data, row_bytes, groups, x, out);
  else if constexpr (codec == Codec::iq4_xs)
    gemv_iq4_xs<R, M>(data, row_bytes, groups, x, out);
  else
    gemv_block32<codec, R, M>(data, row_bytes, groups, x, out);
}

// Formats with loops of their own here; the others share gemv_runs.
template <Codec codec>
constexpr bool kOwnRows = kBlockGroups<codec> == 1 || codec == Codec::q3_k || codec == Codec::q4_k ||
                          codec == Codec::q5_k || codec == Codec::q6_k || codec == Codec::iq4_xs;

template <Codec codec, int M>
inline void gemv_columns(const Source& w, std::int64_t n0, int count, const Int8Row* x, float* out) {
  if constexpr (!kOwnRows<codec>) {
    gemv_runs<codec, M>(w, n0, count, x, out);
  } else {
    const std::int64_t groups = w.cols / 32;
    const std::int64_t row_bytes = groups / kBlockGroups<codec> * kBlockBytes<codec>;
    const std::uint8_t* data = static_cast<const std::uint8_t*>(w.data) + n0 * row_bytes;
    for (int i = 0; i < count; ++i)
      gemv_rows<codec, 1, M>(data + i * row_bytes, row_bytes, groups, x, out + i * kVectorRows);
  }
}

// m activations as chunks of 4, 2 and 1: three versions of each loop instead of eight.
inline bool gemv_int8_512(const Source& w, std::int64_t n0, int count, const Int8Row* x, int m, float* out) {
  return with_codec(w.codec, [&](auto tag) {
    constexpr Codec codec = decltype(tag)::value;
    int done = 0;
    for (; m - done >= 4; done += 4) gemv_columns<codec, 4>(w, n0, count, x + done, out + done);
    for (; m - done >= 2; done += 2) gemv_columns<codec, 2>(w, n0, count, x + done, out + done);
    if (done < m) gemv_columns<codec, 1>(w, n0, count, x + done, out + done);
  });
}

// A dense row of W times M rows of x. One row after another, for the prefetcher; 64 / M weights at a time, since each sum waits
// four cycles for its last addition.
template <Codec codec, int M>
inline void gemv_dense(const std::uint8_t* row, std::int64_t k, const float* x, std::int64_t ldx, float* out) {
  constexpr int kSize = codec == Codec::f32 ? 4 : 2, kParts = 4 / M;
  __m512 acc[kParts][M];
#pragma GCC unroll 4
  for (int u = 0; u < kParts; ++u)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) acc[u][m] = _mm512_setzero_ps();
  const auto add = [&](int u, std::int64_t i, __mmask16 lanes) {
    const __m512 w = dense16(codec, row + i * kSize, lanes);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) acc[u][m] = _mm512_fmadd_ps(w, _mm512_maskz_loadu_ps(lanes, x + m * ldx + i), acc[u][m]);
  };
  std::int64_t i = 0;
  for (; i + 16 * kParts <= k; i += 16 * kParts) {
    for (int line = 0; line < 16 * kParts * kSize; line += 64) ahead(row + i * kSize + line);
#pragma GCC unroll 4
    for (int u = 0; u < kParts; ++u) add(u, i + 16 * u, 0xffff);
  }
  for (; i < k; i += 16) add(0, i, first_lanes(k - i));
  for (int m = 0; m < M; ++m) {
    __m512 sum = acc[0][m];
    for (int u = 1; u < kParts; ++u) sum = _mm512_add_ps(sum, acc[u][m]);
    out[m] += _mm512_reduce_add_ps(sum);
  }
}
template <Codec codec, int M>
inline void gemv_dense_columns(const Source& w, std::int64_t n0, int count, const float* x, std::int64_t ldx, float* out) {
  const std::int64_t row_bytes = w.ld * (codec == Codec::f32 ? 4 : 2);
  const std::uint8_t* data = static_cast<const std::uint8_t*>(w.data) + n0 * row_bytes;
  for (int i = 0; i < count; ++i) gemv_dense<codec, M>(data + i * row_bytes, w.cols, x, ldx, out + i * kVectorRows);
}
template <Codec codec>
inline void gemv_dense_all(const Source& w, std::int64_t n0, int count, const float* x, std::int64_t ldx, int m, float* out) {
  int done = 0;
  for (; m - done >= 4; done += 4) gemv_dense_columns<codec, 4>(w, n0, count, x + done * ldx, ldx, out + done);
  for (; m - done >= 2; done += 2) gemv_dense_columns<codec, 2>(w, n0, count, x + done * ldx, ldx, out + done);
  if (done < m) gemv_dense_columns<codec, 1>(w, n0, count, x + done * ldx, ldx, out + done);
}
inline void gemv_f32_512(const Source& w, std::int64_t n0, int count, const float* x, std::int64_t ldx, int m, float* out) {
  switch (w.codec) {
    case Codec::f32: return gemv_dense_all<Codec::f32>(w, n0, count, x, ldx, m, out);
    case Codec::bf16: return gemv_dense_all<Codec::bf16>(w, n0, count, x, ldx, m, out);
    case Codec::f16: return gemv_dense_all<Codec::f16>(w, n0, count, x, ldx, m, out);
    default: return generic_gemv_f32<to_f32_512>(w, n0, count, x, ldx, m, out);
  }
}

}  // namespace
}  // namespace supersonic::cpu
