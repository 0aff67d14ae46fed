// The building blocks of attention for one instruction set: a small matrix product, and the copies
// into its operands.
//
// An operand is an array of 32-bit words: a float, or, when `pairs`, two bf16 that are neighbours
// along the summed dimension, for vdpbf16ps. The left operand is row-major (rows, words of the
// sum), the right one (words of the sum, columns). kRows x kVectors accumulators stay in registers;
// per step of the sum each left word is broadcast once and used for kVectors products, so the loads
// stay below the rate of the multipliers even when the operands come from L2.
#pragma once
#include "backend/cpu/kernels/attention_layout.h"
#include "backend/cpu/simd_math.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

#if defined(SIMD_AVX512)
constexpr int kTileRows = 8;
constexpr bool kHasPairs = true;  // vdpbf16ps
#else
constexpr int kTileRows = 4;
constexpr bool kHasPairs = false;
#endif

// A dot product as the softmax takes it where scores are capped: its scale still to come.
inline Vec capped(Vec raw, const AttentionShape& s) {
  return tanh(raw * (s.scale / s.cap)) * (s.cap / s.scale);
}

template <bool pairs>
inline Vec multiply_add(float word, Vec b, Vec sum) {
#if defined(SIMD_AVX512)
  if constexpr (pairs) {
    std::int32_t two;
    std::memcpy(&two, &word, 4);
    __m512i broadcast = _mm512_set1_epi32(two);
#if defined(__clang__)  // clang 16 crashes when it sees that a broadcast word is two bf16
                        // (VectorCombine)
    asm("" : "+v"(broadcast));
#endif
    return reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                  reinterpret_cast<__m512bh>(broadcast),
                                                  reinterpret_cast<__m512bh>(b)));
  }
#endif
  return fma(set(word), b, sum);
}

// c (kTileRows, vectors * kLanes) = c * alpha + a b, over the words [begin, end) of the sum;
// without `add`, c = a b. alpha: one factor a column, or null for 1.
template <bool pairs, int vectors, bool add>
inline void multiply_tile(const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                          float* c, std::int64_t ldc, std::int64_t begin, std::int64_t end,
                          const Vec* alpha) {
  Vec acc[kTileRows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) {
      acc[r][j] = add ? load(c + r * ldc + j * kLanes) : Vec{};
      if (add && alpha) acc[r][j] *= alpha[j];
    }
  for (std::int64_t k = begin; k < end; ++k) {
    Vec bk[vectors];
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) bk[j] = load(b + k * ldb + j * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < vectors; ++j)
        acc[r][j] = multiply_add<pairs>(a[r * lda + k], bk[j], acc[r][j]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) store(c + r * ldc + j * kLanes, acc[r][j]);
}

// One word (pairs) or one float of `even` in each lane, and its neighbour of `odd`: what the right
// operand holds.
template <bool pairs>
inline Vec pack_words(Vec even, [[maybe_unused]] Vec odd) {
#if defined(SIMD_AVX512)
  if constexpr (pairs) {
    static constexpr std::uint16_t order[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = reinterpret_cast<__m512i>(
        _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(odd), reinterpret_cast<__m512>(even)));
    return reinterpret_cast<Vec>(_mm512_permutexvar_epi16(_mm512_loadu_si512(order), both));
  }
#endif
  return even;
}

// Rows [r0, r0+1] of a bf16 matrix as words along its columns.
#if defined(SIMD_AVX512)
inline Vec interleave(VecH even, VecH odd) {
  const __m512i a = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(even)),
                b = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(odd));
  return reinterpret_cast<Vec>(_mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}
#endif

// Moves words of a (rows, words) array into a (words, rows) one, square by square: load(row, word,
// n) gives n <= kLanes words of a row, store(word, row, vector, n) takes n words of a column. Rows
// up to a multiple of kLanes are filled with 0.
template <class Load, class Store>
inline void transpose_words(std::int64_t rows, std::int64_t words, Load&& load_row,
                            Store&& store_column) {
  for (std::int64_t r0 = 0; r0 < rows; r0 += kLanes) {
    const int nr = static_cast<int>(rows - r0 < kLanes ? rows - r0 : kLanes);
    for (std::int64_t w0 = 0; w0 < words; w0 += kLanes) {
      const int nw = static_cast<int>(words - w0 < kLanes ? words - w0 : kLanes);
      Vec v[kLanes];
      if (nr == kLanes && nw == kLanes) {
        for (int i = 0; i < kLanes; ++i) v[i] = load_row(r0 + i, w0, AllLanes{});
      } else {
        for (int i = 0; i < kLanes; ++i) v[i] = i < nr ? load_row(r0 + i, w0, nw) : Vec{};
      }
      transpose(v);
      for (int i = 0; i < nw; ++i) store_column(w0 + i, r0, v[i], nr);
    }
  }
}

// The rows of one head: row(i) is where row i begins. `pairs` needs T = bf16.
template <bool pairs, class T, class N>
inline Vec load_words(const T* row, std::int64_t word, N n) {
  if constexpr (pairs) {
    if constexpr (std::is_same_v<N, AllLanes>) {
      Vec v;
      std::memcpy(&v, row + 2 * word, sizeof v);
      return v;
    } else {
      Vec v{};
      std::memcpy(&v, row + 2 * word, static_cast<std::size_t>(n) * 4);
      return v;
    }
  } else {
    return load(row + word, n);
  }
}

// Left operand, sum along d: (rows, d) as it is; rows up to `padded` are 0.
template <bool pairs, class Row>
inline void copy_left(Row&& row, std::int64_t rows, std::int64_t padded, std::int64_t d,
                      float* out) {
  const std::int64_t words = pairs ? d / 2 : d;
  for (std::int64_t r = 0; r < rows; ++r)
    for_each_vec(words, [&](auto w, auto n) {
      store(out + r * words + w, load_words<pairs>(row(r), w, n), n);
    });
  std::memset(out + rows * words, 0, static_cast<std::size_t>((padded - rows) * words) * 4);
}

// Right operand, sum along d: (words of d, columns), leading dimension ld; columns up to a multiple
// of kLanes are 0.
template <bool pairs, class Row>
inline void copy_right(Row&& row, std::int64_t rows, std::int64_t d, float* out, std::int64_t ld) {
  transpose_words(
      rows, pairs ? d / 2 : d,
      [&](std::int64_t r, std::int64_t w, auto n) { return load_words<pairs>(row(r), w, n); },
      [&](std::int64_t w, std::int64_t r, Vec v, int) { store(out + w * ld + r, v); });
}

// Words along the rows themselves: word (i, j) holds row i, or rows 2i and 2i+1, at element j.
template <bool pairs, class Row>
inline auto row_words(Row&& row, [[maybe_unused]] std::int64_t rows) {
  return [row, rows](std::int64_t i, std::int64_t j, auto n) {
    static_cast<void>(rows);
#if defined(SIMD_AVX512)
    if constexpr (pairs) {
      const VecH odd = 2 * i + 1 < rows ? load_half(row(2 * i + 1) + j, n) : VecH{};
      return interleave(load_half(row(2 * i) + j, n), odd);
    }
#endif
    return load(row(i) + j, n);
  };
}

// Left operand, sum along the rows: (d, words of the rows), leading dimension ld; rows up to
// `padded` are 0.
template <bool pairs, class Row>
inline void copy_left_transposed(Row&& row, std::int64_t rows, std::int64_t padded, std::int64_t d,
                                 float* out, std::int64_t ld) {
  const std::int64_t words = pairs ? (rows + 1) / 2 : rows,
                     padded_words = pairs ? padded / 2 : padded;
  transpose_words(words, d, row_words<pairs>(row, rows),
                  [&](std::int64_t e, std::int64_t w, Vec v, int) {
                    const std::int64_t room = padded_words - w;
                    store(out + e * ld + w, v, static_cast<int>(room < kLanes ? room : kLanes));
                  });
}

// Right operand, sum along the rows: (words of the rows, d), leading dimension ld >= d; columns
// from d to ld and rows up to `padded` are 0.
template <bool pairs, class Row>
inline void copy_right_rows(Row&& row, std::int64_t rows, std::int64_t padded, std::int64_t d,
                            float* out, std::int64_t ld) {
  const std::int64_t words = pairs ? (rows + 1) / 2 : rows,
                     padded_words = pairs ? padded / 2 : padded;
  const auto word = row_words<pairs>(row, rows);
  for (std::int64_t i = 0; i < words; ++i) {
    for_each_vec(d, [&](auto j, auto n) { store(out + i * ld + j, word(i, j, n), n); });
    std::memset(out + i * ld + d, 0, static_cast<std::size_t>(ld - d) * 4);
  }
  std::memset(out + words * ld, 0, static_cast<std::size_t>((padded_words - words) * ld) * 4);
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
