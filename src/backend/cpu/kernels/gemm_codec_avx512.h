// Decoders for AVX-512: weights as floats or bf16. Part of gemm_avx512.cpp.
#pragma once
#include <immintrin.h>

#include "backend/cpu/kernels/gemm_runs_x86.h"

namespace supersonic::cpu {
namespace {

// 16 (or the first lanes of) elements of a dense matrix as floats.
inline __m512 dense16(Codec codec, const std::uint8_t* p, __mmask16 lanes) {
  if (codec == Codec::f32) return _mm512_maskz_loadu_ps(lanes, p);
  const __m256i halves = _mm256_maskz_loadu_epi16(lanes, p);
  if (codec == Codec::f16) return _mm512_cvtph_ps(halves);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline __mmask16 first_lanes(std::int64_t n) {
  return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1);
}

// Without a minimum the zero leaves as a whole number, so that infinite scales and signs of zeros
// come out as in the formats' own decoders.
template <Codec codec>
inline void group_f32(const Group32& g, __m512& a, __m512& b) {
  const auto scaled = [&](__m128i codes, int half) {
    const __m512 scale = _mm512_set1_ps(g.scale[half]);
    if constexpr (kHasMin<codec>)
      return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)), scale,
                             _mm512_set1_ps(g.min[half]));
    const __m128i levels = _mm_sub_epi8(codes, _mm_set1_epi8(static_cast<char>(zero_of(codec))));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(levels)), scale);
  };
  a = scaled(_mm256_castsi256_si128(g.codes), 0);
  b = scaled(_mm256_extracti128_si256(g.codes, 1), 1);
}

// NF4: 32 weights under one scale; in a byte the high nibble comes first.
inline void nf4_f32(const std::uint8_t* codes, float scale, __m512& a, __m512& b) {
  const __m512 table = _mm512_setr_ps(-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                      -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                      0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                                      0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                                      0.7229568362236023f, 1.0f);
  const __m512 levels = _mm512_mul_ps(table, _mm512_set1_ps(scale));
  const __m128i packed = load128(codes), mask = _mm_set1_epi8(15);
  const __m128i first = _mm_and_si128(_mm_srli_epi16(packed, 4), mask), second = _mm_and_si128(packed, mask);
  a = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(first, second)), levels);
  b = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpackhi_epi8(first, second)), levels);
}

// Calls f(i, a, b) with 32 weights for each i < groups, from flat group `first` on.
template <class F>
inline void for_groups(const Source& s, std::int64_t first, std::int64_t groups, F f) {
  const auto* data = static_cast<const std::uint8_t*>(s.data);
  __m512 a, b;
  if (s.codec == Codec::nf4) {
    constexpr std::int64_t kBatch = 64;  // blocks whose scales are fetched together
    float scales[kBatch];
    for (std::int64_t i = 0; i < groups;) {
      const std::int64_t block = (first + i) / 2, last = (first + groups + 1) / 2;
      s.scales(*s.planes, block, last - block < kBatch ? last - block : kBatch, scales);
      const std::int64_t end = (block + kBatch) * 2 - first < groups ? (block + kBatch) * 2 - first : groups;
      for (; i < end; ++i) {
        nf4_f32(data + (first + i) * 16, scales[(first + i) / 2 - block], a, b);
        f(i, a, b);
      }
    }
    return;
  }
  with_codec(s.codec, [&](auto tag) {
    constexpr Codec codec = decltype(tag)::value;
    Groups<codec> all(data);
    for (std::int64_t i = 0; i < groups; ++i) {
      group_f32<codec>(all.at(first + i), a, b);
      f(i, a, b);
    }
  });
}

inline bool has_groups(Codec codec) { return codec != Codec::other && codec > Codec::i8_rows; }

inline void to_f32_512(const Source& s, std::int64_t first, std::int64_t count, float* out) {
  const auto* bytes = static_cast<const std::uint8_t*>(s.data);
  if (s.codec < Codec::i8_rows) {
    const std::int64_t size = s.codec == Codec::f32 ? 4 : 2;
    for (std::int64_t i = 0; i < count; i += 16) {
      const __mmask16 lanes = first_lanes(count - i);
      _mm512_mask_storeu_ps(out + i, lanes, dense16(s.codec, bytes + (first + i) * size, lanes));
    }
  } else if (has_groups(s.codec) && first % 32 == 0 && count % 32 == 0) {
    for_groups(s, first / 32, count / 32, [&](std::int64_t i, __m512 a, __m512 b) {
      _mm512_storeu_ps(out + i * 32, a);
      _mm512_storeu_ps(out + i * 32 + 16, b);
    });
  } else {
    generic_to_f32(s, first, count, out);
  }
}

inline void to_bf16_512(const Source& s, std::int64_t first, std::int64_t count, std::uint16_t* out) {
  const auto* bytes = static_cast<const std::uint8_t*>(s.data);
  if (s.codec == Codec::bf16) {
    std::memcpy(out, bytes + first * 2, static_cast<std::size_t>(count) * 2);
  } else if (s.codec < Codec::i8_rows) {
    const std::int64_t size = s.codec == Codec::f32 ? 4 : 2;
    for (std::int64_t i = 0; i < count; i += 16) {
      const __mmask16 lanes = first_lanes(count - i);
      const __m256bh narrow = _mm512_cvtneps_pbh(dense16(s.codec, bytes + (first + i) * size, lanes));
      _mm256_mask_storeu_epi16(out + i, lanes, (__m256i)narrow);
    }
  } else if (has_groups(s.codec) && first % 32 == 0 && count % 32 == 0) {
    for_groups(s, first / 32, count / 32, [&](std::int64_t i, __m512 a, __m512 b) {
      _mm512_storeu_si512(out + i * 32, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    });
  } else {
    generic_to_bf16<generic_to_f32>(s, first, count, out);
  }
}

}  // namespace
}  // namespace supersonic::cpu
