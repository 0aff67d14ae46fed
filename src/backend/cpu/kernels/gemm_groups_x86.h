// Weights of every block format as AVX2 sees them; AVX-512 uses the same and has its own forms of
// the few steps that mask registers make shorter. Part of gemm_avx2.cpp and gemm_avx512.cpp.
//
// A format is described by runs of 256 weights: the codes of each 32 (run_codes), and a scale, in
// some formats a minimum too, for each 16 (run_scales, run_mins): w = scale * (code - zero) + min,
// zero as affine_of() says. Blocks shorter than 256 make up a run together; what is left of a row
// is taken group by group (unpack).
#pragma once
#include <immintrin.h>

#include "backend/cpu/kernels/gemm_generic.h"

namespace supersonic::cpu {
namespace {

inline float half_at(const void* p) { return _cvtsh_ss(load16(p)); }
inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m128i set64(std::uint64_t x) { return _mm_cvtsi64_si128(static_cast<long long>(x)); }
inline __m256i all8(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }

constexpr int kAhead = 1024;  // bytes that a row is prefetched ahead
inline void ahead(const std::uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T0);
}
inline float sum8(__m256 v) {
  const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

// ---- bits as bytes
// ---------------------------------------------------------------------------------------------

// codes + value where the bit of the byte is set.
inline __m256i add_where(__m256i codes, __m256i bytes, int bit, int value) {
#if defined(__AVX512VL__)
  const __mmask32 set = _mm256_test_epi8_mask(bytes, all8(1 << bit));
  return _mm256_mask_add_epi8(codes, set, codes, all8(value));
#else
  const __m256i one = all8(1 << bit);
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, one), one);
  return _mm256_add_epi8(codes, _mm256_and_si256(set, all8(value)));
#endif
}

#if defined(__AVX512VL__)
// Where bit i is set, byte i: codes + value; 128 - codes.
inline __m256i add_bits(__m256i codes, std::uint32_t bits, int value) {
  return _mm256_mask_add_epi8(codes, bits, codes, all8(value));
}
inline __m256i negate_bits(__m256i codes, std::uint32_t bits) {
  return _mm256_mask_sub_epi8(codes, bits, all8(-128), codes);
}
#else
inline __m256i bytes_of_bits(std::uint32_t bits) {  // 255 where the bit is set
  const __m256i each = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
  const __m256i place =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), place);
  return _mm256_cmpeq_epi8(_mm256_and_si256(spread, each), each);
}
inline __m256i add_bits(__m256i codes, std::uint32_t bits, int value) {
  return _mm256_add_epi8(codes, _mm256_and_si256(bytes_of_bits(bits), all8(value)));
}
inline __m256i negate_bits(__m256i codes, std::uint32_t bits) {
  const __m256i m = bytes_of_bits(bits);
  return _mm256_add_epi8(_mm256_xor_si256(codes, m), _mm256_and_si256(m, all8(129)));
}
#endif

// 16 bytes of nibbles -> 32 codes, the low ones first.
inline __m256i nibbles256(const void* p) {
  const __m128i q = load128(p);
  return _mm256_and_si256(
      _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1), all8(15));
}
// 32 nibbles -> the codes of their levels.
inline __m256i look_up256(const std::uint8_t* table, __m256i codes) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table)), codes);
}
inline __m256i two_bits256(const void* p, int part) {
  return _mm256_and_si256(_mm256_srli_epi16(load256(p), 2 * part), all8(3));
}

// ---- blocks
// ---------------------------------------------------------------------------------------------

// Weights and bytes of a block.
struct BlockSize {
  int weights, bytes;
};
constexpr BlockSize block_size(Codec codec) {
  switch (codec) {
    case Codec::q4_0:
      return {32, 18};
    case Codec::q4_1:
      return {32, 20};
    case Codec::q5_0:
      return {32, 22};
    case Codec::q5_1:
      return {32, 24};
    case Codec::q8_0:
      return {32, 34};
    case Codec::iq4_nl:
      return {32, 18};
    case Codec::mxfp4:
      return {32, 17};
    case Codec::nvfp4:
      return {64, 36};
    case Codec::q2_0:
      return {64, 18};
    case Codec::q1_0:
      return {128, 18};
    case Codec::q2_k:
      return {256, 84};
    case Codec::q3_k:
      return {256, 110};
    case Codec::q4_k:
      return {256, 144};
    case Codec::q5_k:
      return {256, 176};
    case Codec::q6_k:
      return {256, 210};
    case Codec::iq1_s:
      return {256, 50};
    case Codec::iq1_m:
      return {256, 56};
    case Codec::iq2_xxs:
      return {256, 66};
    case Codec::iq2_xs:
      return {256, 74};
    case Codec::iq2_s:
      return {256, 82};
    case Codec::iq3_xxs:
      return {256, 98};
    case Codec::iq3_s:
      return {256, 110};
    case Codec::iq4_xs:
      return {256, 136};
    case Codec::tq1_0:
      return {256, 54};
    case Codec::tq2_0:
      return {256, 66};
    default:
      return {};
  }
}
template <Codec codec>
constexpr int kBlockBytes = block_size(codec).bytes;
template <Codec codec>
constexpr int kBlockGroups = block_size(codec).weights / 32;
template <Codec codec>
constexpr int kRunBytes = 8 / kBlockGroups<codec>* kBlockBytes<codec>;
template <Codec codec>
constexpr bool kHasMin = affine_of(codec).has_min;

// What the nibbles of a block stand for: themselves, or levels.
template <Codec codec>
inline __m256i nibble_codes(__m256i nibbles) {
  if constexpr (codec == Codec::iq4_nl || codec == Codec::iq4_xs)
    return look_up256(kIq4Codes, nibbles);
  if constexpr (codec == Codec::mxfp4 || codec == Codec::nvfp4)
    return look_up256(kE2m1Codes, nibbles);
  return nibbles;
}
// The four 32-weight groups of half a Q6_K block (128 weights), as codes 0..63.
inline __m256i q6_codes(const std::uint8_t* b, int sub) {
  const int half = sub / 4, part = sub % 4;
  const __m256i low = load256(b + half * 64 + part % 2 * 32);
  const __m256i nibble = _mm256_and_si256(part < 2 ? low : _mm256_srli_epi16(low, 4), all8(15));
  return _mm256_or_si256(nibble, _mm256_slli_epi16(two_bits256(b + 128 + half * 32, part), 4));
}
// Eight bytes of four 2-bit codes each, the first in the lowest bits.
inline __m256i q2_0_codes(const std::uint8_t* p) {
  __m256i x = _mm256_cvtepu8_epi32(set64(load64(p)));
  x = _mm256_or_si256(x, _mm256_slli_epi32(x, 12));
  x = _mm256_or_si256(x, _mm256_slli_epi32(x, 6));
  return _mm256_and_si256(x, all8(3));
}
inline __m256i nvfp4_codes(const std::uint8_t* p) {
  const __m128i q = load128(p), mask = _mm_set1_epi8(15);
  const __m128i low = _mm_and_si128(q, mask), high = _mm_and_si128(_mm_srli_epi16(q, 4), mask);
  return nibble_codes<Codec::nvfp4>(
      _mm256_setr_m128i(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high)));
}

// TQ1_0: fractions of 256, times three n times; then the first digit of each, base 3.
inline __m256i thrice(__m256i x, int n) {
  for (int k = 0; k < n; ++k) x = _mm256_add_epi8(x, _mm256_add_epi8(x, x));
  return x;
}
inline __m256i first_digit(__m256i x) {
  const __m256i one = _mm256_cmpeq_epi8(_mm256_max_epu8(x, all8(86)), x);
  const __m256i two = _mm256_cmpeq_epi8(_mm256_max_epu8(x, all8(171)), x);
  return _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(one, two));
}
inline __m256i tq1_codes(const std::uint8_t* b, int sub) {
  if (sub < 5) return first_digit(thrice(load256(b), sub));
  const __m256i x = thrice(_mm256_broadcastsi128_si256(load128(b + 32)), 2 * (sub - 5));
  if (sub < 7) return first_digit(_mm256_blend_epi32(x, thrice(x, 1), 0xf0));
  const __m256i y = _mm256_set1_epi32(static_cast<int>(load32(b + 48)));
  const __m256i first = _mm256_blend_epi32(y, thrice(y, 1), 0x20);
  return first_digit(_mm256_blend_epi32(_mm256_blend_epi32(x, first, 0x30),
                                        _mm256_blend_epi32(thrice(y, 2), thrice(y, 3), 0x80),
                                        0xc0));
}

// Group `sub` of the block at b. In blocks of 256 the i-quants' are in gemm_lattices_x86.h.
template <Codec codec>
inline __m256i lattice_codes(const std::uint8_t* b, int sub);
template <Codec codec>
inline __m256i block_codes(const std::uint8_t* b, int sub) {
  if constexpr (codec == Codec::q4_0 || codec == Codec::iq4_nl)
    return nibble_codes<codec>(nibbles256(b + 2));
  else if constexpr (codec == Codec::q4_1)
    return nibbles256(b + 4);
  else if constexpr (codec == Codec::q5_0)
    return add_bits(nibbles256(b + 6), load32(b + 2), 16);
  else if constexpr (codec == Codec::q5_1)
    return add_bits(nibbles256(b + 8), load32(b + 4), 16);
  else if constexpr (codec == Codec::mxfp4)
    return nibble_codes<codec>(nibbles256(b + 1));
  else if constexpr (codec == Codec::q8_0)
    return _mm256_xor_si256(load256(b + 2), all8(-128));
  else if constexpr (codec == Codec::nvfp4)
    return nvfp4_codes(b + 4 + 16 * sub);
  else if constexpr (codec == Codec::q2_0)
    return q2_0_codes(b + 2 + 8 * sub);
  else if constexpr (codec == Codec::q1_0)
    return add_bits(_mm256_setzero_si256(), load32(b + 2 + 4 * sub), 2);
  else if constexpr (codec == Codec::q2_k)
    return two_bits256(b + 16 + sub / 4 * 32, sub % 4);
  else if constexpr (codec == Codec::tq2_0)
    return two_bits256(b + sub / 4 * 32, sub % 4);
  else if constexpr (codec == Codec::tq1_0)
    return tq1_codes(b, sub);
  else if constexpr (codec == Codec::q3_k)
    return add_where(two_bits256(b + 32 + sub / 4 * 32, sub % 4), load256(b), sub, 4);
  else if constexpr (codec == Codec::q6_k)
    return q6_codes(b, sub);
  else if constexpr (codec == Codec::iq4_xs)
    return nibble_codes<codec>(nibbles256(b + 8 + sub * 16));
  else if constexpr (codec == Codec::q4_k || codec == Codec::q5_k) {
    const __m256i q = load256(b + (codec == Codec::q5_k ? 48 : 16) + sub / 2 * 32);
    const __m256i low = _mm256_and_si256(sub % 2 ? _mm256_srli_epi16(q, 4) : q, all8(15));
    return codec == Codec::q5_k ? add_where(low, load256(b + 16), sub, 16) : low;
  } else
    return lattice_codes<codec>(b, sub);
}
template <Codec codec>
inline __m256i run_codes(const std::uint8_t* run, int j) {
  constexpr int n = kBlockGroups<codec>;
  return block_codes<codec>(run + j / n * kBlockBytes<codec>, j % n);
}

}  // namespace
}  // namespace supersonic::cpu
