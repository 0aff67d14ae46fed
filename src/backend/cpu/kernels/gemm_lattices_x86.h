// The i-quants for AVX2 and AVX-512: codes of 32 weights from a lattice. Part of gemm_groups_x86.h.
//
// What they cost more than other formats: loads of points, four to eight for 32 weights and each
// followed by an insertion; three instructions for signs, ten more for signs of seven bits. Gather
// instructions in place of the insertions have not been measured.
#pragma once
#include "backend/cpu/kernels/gemm_groups_x86.h"

namespace supersonic::cpu {
namespace {

template <int N>
inline __m256i four_points(const lattices::Points<std::uint64_t, N>& grid, std::uint32_t i0,
                           std::uint32_t i1, std::uint32_t i2, std::uint32_t i3) {
  const auto at = [&](std::uint32_t i) { return static_cast<long long>(grid.words[i]); };
  return _mm256_setr_epi64x(at(i0), at(i1), at(i2), at(i3));
}
template <class Index>
inline __m256i eight_points(const std::uint32_t* words, Index index) {
  const auto at = [&](int k) { return static_cast<int>(words[index(k)]); };
  return _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
}

inline __m256i iq1_s_codes(const std::uint8_t* b, int sub) {
  const std::uint8_t* low = b + 2 + 4 * sub;
  const std::uint32_t high = load16(b + 34 + 2 * sub);
  const __m256i points =
      four_points(lattices::kIq1, low[0] | (high & 7) << 8, low[1] | (high >> 3 & 7) << 8,
                  low[2] | (high >> 6 & 7) << 8, low[3] | (high >> 9 & 7) << 8);
  return _mm256_add_epi8(points, all8(high >> 15 ? -1 : 1));
}
inline __m256i iq1_m_codes(const std::uint8_t* b, int sub) {
  const std::uint8_t* low = b + 4 * sub;
  const std::uint32_t high = load16(b + 32 + 2 * sub);
  const __m256i points =
      four_points(lattices::kIq1, low[0] | (high & 7) << 8, low[1] | (high >> 4 & 7) << 8,
                  low[2] | (high >> 8 & 7) << 8, low[3] | (high >> 12 & 7) << 8);
  // Words of ones where the point's shift is down, so that "or 1" makes -1 or 1 of each byte.
  const __m256i each =
      _mm256_setr_epi64x(0x0008000800080008, 0x0080008000800080, 0x0800080008000800,
                         static_cast<long long>(0x8000800080008000u));
  const __m256i words = _mm256_set1_epi16(static_cast<short>(high));
  const __m256i down = _mm256_cmpeq_epi16(_mm256_and_si256(words, each), each);
  return _mm256_add_epi8(points, _mm256_or_si256(down, all8(1)));
}
inline __m256i iq2_xxs_codes(const std::uint8_t* b, int sub) {
  const std::uint8_t* low = b + 2 + 8 * sub;
  return negate_bits(four_points(lattices::kIq2Xxs, low[0], low[1], low[2], low[3]),
                     signs_of_four(load32(low + 4)));
}
inline __m256i iq2_xs_codes(const std::uint8_t* b, int sub) {
  const std::uint64_t q = load64(b + 2 + 8 * sub);
  const auto index = [&](int p) { return static_cast<std::uint32_t>(q >> (16 * p) & 511); };
  const std::uint64_t seven =
      (q >> 9 & 0x7f) | (q >> 17 & 0x7f00) | (q >> 25 & 0x7f0000) | (q >> 33 & 0x7f000000);
  return negate_bits(four_points(lattices::kIq2Xs, index(0), index(1), index(2), index(3)),
                     with_eighth(static_cast<std::uint32_t>(seven)));
}
inline __m256i iq2_s_codes(const std::uint8_t* b, int sub) {
  const std::uint8_t* low = b + 2 + 4 * sub;
  const std::uint32_t high = b[66 + sub];
  return negate_bits(
      four_points(lattices::kIq2S, low[0] | (high & 3) << 8, low[1] | (high >> 2 & 3) << 8,
                  low[2] | (high >> 4 & 3) << 8, low[3] | high >> 6 << 8),
      load32(b + 34 + 4 * sub));
}
inline __m256i iq3_xxs_codes(const std::uint8_t* b, int sub) {
  const std::uint8_t* low = b + 2 + 8 * sub;
  return negate_bits(eight_points(lattices::kIq3Xxs.words, [&](int k) { return low[k]; }),
                     signs_of_four(load32(b + 66 + 4 * sub)));
}
inline __m256i iq3_s_codes(const std::uint8_t* b, int sub) {
  const std::uint8_t* low = b + 2 + 8 * sub;
  const int ninth = b[66 + sub] << 8;
  return negate_bits(
      eight_points(lattices::kIq3S.words, [&](int k) { return low[k] | (ninth >> k & 256); }),
      load32(b + 74 + 4 * sub));
}

template <Codec codec>
inline __m256i lattice_codes(const std::uint8_t* b, int sub) {
  if constexpr (codec == Codec::iq1_s) return iq1_s_codes(b, sub);
  if constexpr (codec == Codec::iq1_m) return iq1_m_codes(b, sub);
  if constexpr (codec == Codec::iq2_xxs) return iq2_xxs_codes(b, sub);
  if constexpr (codec == Codec::iq2_xs) return iq2_xs_codes(b, sub);
  if constexpr (codec == Codec::iq2_s) return iq2_s_codes(b, sub);
  if constexpr (codec == Codec::iq3_xxs) return iq3_xxs_codes(b, sub);
  if constexpr (codec == Codec::iq3_s) return iq3_s_codes(b, sub);
}

}  // namespace
}  // namespace supersonic::cpu
