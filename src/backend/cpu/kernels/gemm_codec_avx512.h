// Decoders for AVX-512: 32 weights of a format as codes in one ymm, with scale and offset. Part of gemm_avx512.cpp.
#pragma once
#include <immintrin.h>

#include "backend/cpu/kernels/gemm_generic.h"

namespace supersonic::cpu {
namespace {

// weight = scale * code + offset; one pair per 16 weights.
struct Group512 {
  __m256i codes;
  float scale[2], offset[2];
};

inline float half_at(const void* p) { return _cvtsh_ss(load16(p)); }
inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// 16 bytes of nibbles -> 32 codes, the low ones first.
inline __m256i nibbles256(const void* p) {
  const __m128i q = load128(p);
  return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1),
                          _mm256_set1_epi8(15));
}
// 32 nibbles -> the codes of their levels.
inline __m256i look_up256(const std::uint8_t* table, __m256i codes) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table)), codes);
}
inline __m256i fifth_bits256(__m256i codes, const void* bits) {
  return _mm256_mask_add_epi8(codes, static_cast<__mmask32>(load32(bits)), codes, _mm256_set1_epi8(16));
}

// Bytes of a 32-weight block, and its codes.
template <Codec codec>
constexpr int kBlock32Bytes = codec == Codec::q4_0   ? 18
                              : codec == Codec::q4_1 ? 20
                              : codec == Codec::q5_0 ? 22
                              : codec == Codec::q5_1 ? 24
                              : codec == Codec::iq4_nl ? 18
                              : codec == Codec::mxfp4  ? 17
                                                       : 34;
template <Codec codec>
inline float block32_scale(const std::uint8_t* b) {
  if constexpr (codec == Codec::mxfp4) return e8m0_half(b[0]);
  return half_at(b);
}
// What the nibbles of such a block stand for: themselves, or levels.
template <Codec codec>
inline __m256i nibble_codes(__m256i nibbles) {
  if constexpr (codec == Codec::iq4_nl || codec == Codec::iq4_xs) return look_up256(kIq4Codes, nibbles);
  if constexpr (codec == Codec::mxfp4) return look_up256(kE2m1Codes, nibbles);
  return nibbles;
}
template <Codec codec>
inline __m256i block32_codes(const std::uint8_t* b) {
  if constexpr (codec == Codec::q4_0) return nibbles256(b + 2);
  if constexpr (codec == Codec::q4_1) return nibbles256(b + 4);
  if constexpr (codec == Codec::q5_0) return fifth_bits256(nibbles256(b + 6), b + 2);
  if constexpr (codec == Codec::q5_1) return fifth_bits256(nibbles256(b + 8), b + 4);
  if constexpr (codec == Codec::iq4_nl) return nibble_codes<codec>(nibbles256(b + 2));
  if constexpr (codec == Codec::mxfp4) return nibble_codes<codec>(nibbles256(b + 1));
  if constexpr (codec == Codec::q8_0) return _mm256_xor_si256(load256(b + 2), _mm256_set1_epi8(-128));
}
template <Codec codec>
constexpr bool kHasMin =
    codec == Codec::q4_1 || codec == Codec::q5_1 || codec == Codec::q4_k || codec == Codec::q5_k;

// The four 32-weight groups of half a Q6_K block (128 weights), as codes 0..63.
inline __m256i q6_codes(const std::uint8_t* b, int sub) {
  const int half = sub / 4, part = sub % 4;
  const __m256i low = load256(b + half * 64 + part % 2 * 32), high = load256(b + 128 + half * 32);
  const __m256i nibble = _mm256_and_si256(part < 2 ? low : _mm256_srli_epi16(low, 4), _mm256_set1_epi8(15));
  const __m256i top = _mm256_and_si256(_mm256_srli_epi16(high, part * 2), _mm256_set1_epi8(3));
  return _mm256_or_si256(nibble, _mm256_slli_epi16(top, 4));
}

// The eight 32-weight groups of a Q3_K block, as codes 0..7.
inline __m256i q3_codes(const std::uint8_t* b, int sub) {
  const __m256i low = _mm256_and_si256(_mm256_srli_epi16(load256(b + 32 + sub / 4 * 32), sub % 4 * 2), _mm256_set1_epi8(3));
  const __mmask32 third = _mm256_test_epi8_mask(load256(b), _mm256_set1_epi8(static_cast<char>(1 << sub)));
  return _mm256_mask_add_epi8(low, third, low, _mm256_set1_epi8(4));
}

// Formats with a scale for each 16 weights: Q3_K, Q6_K.
template <Codec codec>
constexpr bool kHalves = codec == Codec::q3_k || codec == Codec::q6_k;
template <Codec codec>
constexpr int kHalvesBytes = codec == Codec::q3_k ? 110 : 210;
template <Codec codec>
inline __m256i halves_codes(const std::uint8_t* b, int sub) {
  if constexpr (codec == Codec::q3_k) return q3_codes(b, sub);
  return q6_codes(b, sub);
}

// Group `index` of 32 weights of a matrix in this format.
template <Codec codec>
inline Group512 unpack512(const std::uint8_t* data, std::int64_t index) {
  Group512 g;
  if constexpr (codec == Codec::q4_k || codec == Codec::q5_k) {
    constexpr bool five = codec == Codec::q5_k;
    const std::uint8_t* b = data + index / 8 * (five ? 176 : 144);
    const int sub = static_cast<int>(index % 8);
    int scale, min;
    scale_min_6bit(b + 4, sub, scale, min);
    both(g.scale, half_at(b) * static_cast<float>(scale));
    both(g.offset, -half_at(b + 2) * static_cast<float>(min));
    const __m256i q = load256(b + (five ? 48 : 16) + sub / 2 * 32);
    g.codes = _mm256_and_si256(sub % 2 ? _mm256_srli_epi16(q, 4) : q, _mm256_set1_epi8(15));
    if constexpr (five) {
      const __mmask32 fifth = _mm256_test_epi8_mask(load256(b + 16), _mm256_set1_epi8(static_cast<char>(1 << sub)));
      g.codes = _mm256_mask_add_epi8(g.codes, fifth, g.codes, _mm256_set1_epi8(16));
    }
  } else if constexpr (kHalves<codec>) {
    const std::uint8_t* b = data + index / 8 * kHalvesBytes<codec>;
    const int sub = static_cast<int>(index % 8);
    const float d = half_at(b + kHalvesBytes<codec> - 2);
    for (int i = 0; i < 2; ++i) {
      const int scale = codec == Codec::q3_k ? q3_k_scale(b + 96, sub * 2 + i)
                                             : static_cast<std::int8_t>(b[192 + sub * 2 + i]);
      g.scale[i] = d * static_cast<float>(scale);
      g.offset[i] = -static_cast<float>(zero_of(codec)) * g.scale[i];
    }
    g.codes = halves_codes<codec>(b, sub);
  } else if constexpr (codec == Codec::iq4_xs) {
    const std::uint8_t* b = data + index / 8 * 136;
    const int sub = static_cast<int>(index % 8);
    both(g.scale, half_at(b) * static_cast<float>(iq4_xs_scale(b, sub)));
    both(g.offset, -128 * g.scale[0]);
    g.codes = nibble_codes<codec>(nibbles256(b + 8 + sub * 16));
  } else {
    const std::uint8_t* b = data + index * kBlock32Bytes<codec>;
    const float d = block32_scale<codec>(b);
    both(g.scale, d);
    both(g.offset, kHasMin<codec> ? half_at(b + 2) : -static_cast<float>(zero_of(codec)) * d);
    g.codes = block32_codes<codec>(b);
  }
  return g;
}

template <Codec c>
struct CodecTag {
  static constexpr Codec value = c;
};
// Calls f(CodecTag<codec>) for the formats that unpack512 knows; false for others.
template <class F>
inline bool with_codec(Codec codec, F f) {
  switch (codec) {
    case Codec::q4_0: return f(CodecTag<Codec::q4_0>()), true;
    case Codec::q4_1: return f(CodecTag<Codec::q4_1>()), true;
    case Codec::q5_0: return f(CodecTag<Codec::q5_0>()), true;
    case Codec::q5_1: return f(CodecTag<Codec::q5_1>()), true;
    case Codec::q8_0: return f(CodecTag<Codec::q8_0>()), true;
    case Codec::q3_k: return f(CodecTag<Codec::q3_k>()), true;
    case Codec::q4_k: return f(CodecTag<Codec::q4_k>()), true;
    case Codec::q5_k: return f(CodecTag<Codec::q5_k>()), true;
    case Codec::q6_k: return f(CodecTag<Codec::q6_k>()), true;
    case Codec::iq4_nl: return f(CodecTag<Codec::iq4_nl>()), true;
    case Codec::iq4_xs: return f(CodecTag<Codec::iq4_xs>()), true;
    case Codec::mxfp4: return f(CodecTag<Codec::mxfp4>()), true;
    default: return false;
  }
}

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

inline void group_f32(const Group512& g, __m512& a, __m512& b) {
  const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(g.codes)));
  const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(g.codes, 1)));
  a = _mm512_fmadd_ps(low, _mm512_set1_ps(g.scale[0]), _mm512_set1_ps(g.offset[0]));
  b = _mm512_fmadd_ps(high, _mm512_set1_ps(g.scale[1]), _mm512_set1_ps(g.offset[1]));
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
    for (std::int64_t i = 0; i < groups; ++i) {
      group_f32(unpack512<decltype(tag)::value>(data, first + i), a, b);
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
