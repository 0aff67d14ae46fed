// Scales of runs of 256 weights, and what is made of runs on AVX2 and AVX-512: single groups
// (Groups), and products with a few rows of activations (gemv_runs). Part of gemm_avx2.cpp and
// gemm_avx512.cpp.
//
// gemv_runs reads weights once, straight from the mapped file. Lattices leave it far below the
// memory's rate (gemm_lattices_x86.h); bench/format_bench shows how far each format is.
// Minima and zeros go through the sums of x that were computed when x was quantized.
#pragma once
#include "backend/cpu/kernels/gemm_lattices_x86.h"

namespace supersonic::cpu {
namespace {

// A number for each 16 of 256 weights.
struct Halves {
  __m256 low, high;
};
inline Halves times(Halves h, float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {_mm256_mul_ps(h.low, v), _mm256_mul_ps(h.high, v)};
}
inline Halves plus(Halves h, float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {_mm256_add_ps(h.low, v), _mm256_add_ps(h.high, v)};
}
inline Halves twice(__m256 eight) {  // numbers of 32 weights each
  return {_mm256_permutevar8x32_ps(eight, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
          _mm256_permutevar8x32_ps(eight, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
}
inline __m256 eight_bytes(__m128i x) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)); }
inline Halves sixteen_bytes(__m128i x) {
  return {eight_bytes(x), eight_bytes(_mm_srli_si128(x, 8))};
}
// Eight bytes of nibbles, the low ones first.
inline __m128i nibbles128(std::uint64_t packed) {
  constexpr std::uint64_t kLow = 0x0f0f0f0f0f0f0f0f;
  return _mm_unpacklo_epi8(set64(packed & kLow), set64(packed >> 4 & kLow));
}

// ---- scales of one format
// ---------------------------------------------------------------------------------------------

// The 16-bit numbers at `at` in each block of 32.
template <Codec codec>
inline __m256 block_halves(const std::uint8_t* b, int at) {
  const auto h = [&](int i) { return static_cast<short>(load16(b + i * kBlockBytes<codec> + at)); };
  return _mm256_cvtph_ps(_mm_setr_epi16(h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7)));
}
inline __m256 mxfp4_scales(const std::uint8_t* b) {
  const auto e = [&](int i) { return static_cast<int>(b[17 * i]); };
  const __m256i exponents = _mm256_setr_epi32(e(0), e(1), e(2), e(3), e(4), e(5), e(6), e(7));
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)), 23);
  const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), exponents);
  const __m256i is_normal = _mm256_cmpgt_epi32(exponents, _mm256_set1_epi32(1));
  return _mm256_castsi256_ps(_mm256_blendv_epi8(small, normal, is_normal));
}
// An 8-bit float's bits are those of a binary16 with 2^-8 of its value, here halved.
inline Halves nvfp4_scales(const std::uint8_t* b) {
  const auto four = [&](int i) { return static_cast<int>(load32(b + 36 * i)); };
  const __m128i s = _mm_setr_epi32(four(0), four(1), four(2), four(3));
  const __m128i kept =
      _mm_andnot_si128(_mm_cmpeq_epi8(s, _mm_set1_epi8(127)), _mm_and_si128(s, _mm_set1_epi8(127)));
  const __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(kept), 7);
  return times({_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))},
               128);
}
// Eight 6-bit numbers: scales of Q4_K and Q5_K, or (minima) what is subtracted.
inline __m256 k_scales(const std::uint8_t* b, bool minima) {
  const std::uint32_t u0 = load32(b + 4), u1 = load32(b + 8), u2 = load32(b + 12);
  const std::uint32_t first = minima ? u1 : u0, last = minima ? u2 >> 4 : u2;
  const std::uint32_t high = (last & 0x0f0f0f0f) | (first >> 2 & 0x30303030);
  return eight_bytes(set64((first & 0x3f3f3f3f) | std::uint64_t{high} << 32));
}
// The sixteen scales of Q3_K and Q6_K as signed bytes: packed into six bits, or stored so.
template <Codec codec>
inline __m128i halves_scales(const std::uint8_t* b) {
  if constexpr (codec == Codec::q6_k) return load128(b + 192);
  const std::uint64_t low = load64(b + 96), high = load32(b + 104);
  constexpr std::uint64_t kNibbles = 0x0f0f0f0f0f0f0f0f, kPairs = 0x03030303;
  const std::uint64_t first = (low & kNibbles) | (high & kPairs) << 4 | (high >> 2 & kPairs) << 36;
  const std::uint64_t second =
      (low >> 4 & kNibbles) | (high >> 4 & kPairs) << 4 | (high >> 6 & kPairs) << 36;
  return _mm_sub_epi8(_mm_unpacklo_epi64(set64(first), set64(second)), _mm_set1_epi8(32));
}
inline __m256 iq4_xs_scales(const std::uint8_t* b) {
  const __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(load32(b + 4))),
                                        _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
  const __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(load16(b + 2)),
                                         _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
  const __m256i s =
      _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)),
                      _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(s, _mm256_set1_epi32(32)));
}
// 2 s + 1, s of three bits; four of them in each word of IQ1_M, one in each of IQ1_S.
inline __m256 odd(__m256i s) {
  const __m256i twice = _mm256_slli_epi32(_mm256_and_si256(s, _mm256_set1_epi32(7)), 1);
  return _mm256_cvtepi32_ps(_mm256_or_si256(twice, _mm256_set1_epi32(1)));
}
inline Halves iq1_m_scales(const std::uint8_t* b) {
  const __m256i words = _mm256_cvtepu16_epi32(set64(load64(b + 48)));
  const __m256i shifts = _mm256_setr_epi32(0, 3, 6, 9, 0, 3, 6, 9);
  const auto pair = [&](int first, int second) {
    const __m256i lanes =
        _mm256_setr_epi32(first, first, first, first, second, second, second, second);
    return odd(_mm256_srlv_epi32(_mm256_permutevar8x32_epi32(words, lanes), shifts));
  };
  return times({pair(0, 1), pair(2, 3)}, iq1_m_d(b) * 0.125f);
}
inline __m256 iq2_xxs_scales(const std::uint8_t* b) {  // the top nibbles of eight 64-bit words
  const __m256i a = _mm256_srli_epi64(load256(b + 2), 60);
  const __m256i c = _mm256_srli_epi64(load256(b + 34), 60);
  const __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(c), 0x88);
  return _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xd8));
}

// ---- scales of every format
// ---------------------------------------------------------------------------------------------

template <Codec codec>
inline Halves run_scales(const std::uint8_t* b) {
  if constexpr (codec == Codec::mxfp4) {
    return twice(mxfp4_scales(b));
  } else if constexpr (codec == Codec::nvfp4) {
    return nvfp4_scales(b);
  } else if constexpr (codec == Codec::q2_0) {
    const auto d = [&](int i) { return _mm_set1_ps(half_at(b + 18 * i)); };
    return {_mm256_setr_m128(d(0), d(1)), _mm256_setr_m128(d(2), d(3))};
  } else if constexpr (codec == Codec::q1_0) {
    return {_mm256_set1_ps(half_at(b)), _mm256_set1_ps(half_at(b + 18))};
  } else if constexpr (codec == Codec::q2_k) {
    return times(sixteen_bytes(_mm_and_si128(load128(b), _mm_set1_epi8(15))), half_at(b + 80));
  } else if constexpr (codec == Codec::q3_k || codec == Codec::q6_k) {
    return times(sixteen_bytes(halves_scales<codec>(b)), half_at(b + kBlockBytes<codec> - 2));
  } else if constexpr (codec == Codec::q4_k || codec == Codec::q5_k) {
    return times(twice(k_scales(b, false)), half_at(b));
  } else if constexpr (codec == Codec::iq4_xs) {
    return times(twice(iq4_xs_scales(b)), half_at(b));
  } else if constexpr (codec == Codec::tq1_0 || codec == Codec::tq2_0) {
    const __m256 d = _mm256_set1_ps(half_at(b + kBlockBytes<codec> - 2));
    return {d, d};
  } else if constexpr (codec == Codec::iq1_s) {
    const __m256i words = _mm256_cvtepu16_epi32(load128(b + 34));
    return times(twice(odd(_mm256_srli_epi32(words, 12))), half_at(b) * 0.125f);
  } else if constexpr (codec == Codec::iq1_m) {
    return iq1_m_scales(b);
  } else if constexpr (codec == Codec::iq2_xxs) {
    return times(plus(twice(iq2_xxs_scales(b)), 0.5f), half_at(b) * 0.25f);
  } else if constexpr (codec == Codec::iq2_xs || codec == Codec::iq2_s) {
    const __m128i s = nibbles128(load64(b + (codec == Codec::iq2_xs ? 66 : 74)));
    return times(plus(sixteen_bytes(s), 0.5f), half_at(b) * 0.25f);
  } else if constexpr (codec == Codec::iq3_xxs) {
    const __m256 s = _mm256_cvtepi32_ps(_mm256_srli_epi32(load256(b + 66), 28));
    return times(plus(twice(s), 0.5f), half_at(b) * 0.5f);
  } else if constexpr (codec == Codec::iq3_s) {
    const __m256i s = _mm256_cvtepu8_epi32(nibbles128(load32(b + 106)));
    return times(plus(twice(_mm256_cvtepi32_ps(_mm256_add_epi32(s, s))), 1), half_at(b));
  } else {
    return twice(block_halves<codec>(b, 0));
  }
}
template <Codec codec>
inline Halves run_mins(const std::uint8_t* b) {
  if constexpr (codec == Codec::q2_k) {
    const __m128i m = _mm_and_si128(_mm_srli_epi16(load128(b), 4), _mm_set1_epi8(15));
    return times(sixteen_bytes(m), -half_at(b + 82));
  } else if constexpr (codec == Codec::q4_k || codec == Codec::q5_k) {
    return times(twice(k_scales(b, true)), -half_at(b + 2));
  } else {
    return twice(block_halves<codec>(b, 2));
  }
}

// ---- single groups
// ---------------------------------------------------------------------------------------------

// 32 weights: w = scale * (code - zero) + min, a pair for each 16.
struct Group32 {
  __m256i codes;
  float scale[2], min[2];
};

// The groups of a matrix, by their flat index. Scales of a block of 256 are found once for its
// groups, if they are asked for one after another.
template <Codec codec>
class Groups {
 public:
  explicit Groups(const void* data) : data_(static_cast<const std::uint8_t*>(data)) {}

  Group32 at(std::int64_t index) {
    constexpr int n = kBlockGroups<codec>;
    const std::uint8_t* b = data_ + index / n * kBlockBytes<codec>;
    const int sub = static_cast<int>(index % n);
    Group32 g = {block_codes<codec>(b, sub), {}, {}};
    if constexpr (n == 8) {
      if (index / n != block_) find_scales(b, index / n);
      std::memcpy(g.scale, scales_ + 2 * sub, sizeof g.scale);
      if constexpr (kHasMin<codec>) std::memcpy(g.min, mins_ + 2 * sub, sizeof g.min);
    } else if constexpr (codec == Codec::nvfp4) {
      for (int i = 0; i < 2; ++i) g.scale[i] = e4m3_half(b[2 * sub + i]);
    } else {
      both(g.scale, codec == Codec::mxfp4 ? e8m0_half(b[0]) : half_at(b));
      if constexpr (kHasMin<codec>) both(g.min, half_at(b + 2));
    }
    return g;
  }

 private:
  void find_scales(const std::uint8_t* b, std::int64_t block) {
    block_ = block;
    store(scales_, run_scales<codec>(b));
    if constexpr (kHasMin<codec>) store(mins_, run_mins<codec>(b));
  }
  static void store(float* to, Halves h) {
    _mm256_store_ps(to, h.low);
    _mm256_store_ps(to + 8, h.high);
  }

  const std::uint8_t* data_;
  std::int64_t block_ = -1;
  alignas(32) float scales_[16];
  alignas(32) float mins_[16];
};

// Calls f(CodecTag<codec>) for the block formats; false for others.
template <Codec c>
struct CodecTag {
  static constexpr Codec value = c;
};
template <Codec... all>
struct CodecTags {
  template <class F>
  static bool with(Codec codec, F f) {
    return ((codec == all && (f(CodecTag<all>()), true)) || ...);
  }
};
using BlockTags =
    CodecTags<Codec::q4_0, Codec::q4_1, Codec::q5_0, Codec::q5_1, Codec::q8_0, Codec::q2_k,
              Codec::q3_k, Codec::q4_k, Codec::q5_k, Codec::q6_k, Codec::iq1_s, Codec::iq1_m,
              Codec::iq2_xxs, Codec::iq2_xs, Codec::iq2_s, Codec::iq3_xxs, Codec::iq3_s,
              Codec::iq4_nl, Codec::iq4_xs, Codec::mxfp4, Codec::nvfp4, Codec::tq1_0, Codec::tq2_0,
              Codec::q1_0, Codec::q2_0>;
template <class F>
inline bool with_codec(Codec codec, F f) {
  return BlockTags::with(codec, f);
}

// ---- packed panels of int8 products
// ---------------------------------------------------------------------------------------------

// As Inner::pack_int8.
void pack_int8(const Source& s, Affine a, std::int64_t n0, int count, int width, std::int64_t g0,
               std::int64_t groups, std::uint8_t* out) {
  const int halves = a.halves ? 2 : 1, bytes = width * (32 + 4 * halves * (a.has_min ? 2 : 1));
  const std::int64_t row_groups = s.cols / 32;
  with_codec(s.codec, [&](auto tag) {
    Groups<decltype(tag)::value> all(s.data);
    for (int c = 0; c < width; ++c)
      for (std::int64_t g = 0; g < groups; ++g) {
        Group32 group = {};
        if (c < count) group = all.at((n0 + c) * row_groups + g0 + g);
        std::uint8_t* to = out + g * bytes;
        alignas(32) std::uint32_t words[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(words), group.codes);
        for (int q = 0; q < 8; ++q) std::memcpy(to + (q * width + c) * 4, words + q, 4);
        float* scale = reinterpret_cast<float*>(to + width * 32) + c;
        for (int h = 0; h < halves; ++h) {
          scale[h * width] = group.scale[h];
          if (a.has_min) scale[(halves + h) * width] = group.min[h];
        }
      }
  });
}

// ---- products with few rows
// ---------------------------------------------------------------------------------------------

// Whether dot_products() subtracts the zero itself.
#if defined(__AVX512VNNI__)
template <Codec codec>
constexpr bool kZeroIsOff = false;
// Codes times x, as four sums of the first 16 and four of the others.
template <Codec codec>
inline __m256i dot_products(__m256i codes, __m256i x) {
  return _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, x);
}
#else
template <Codec codec>
constexpr bool kZeroIsOff = affine_of(codec).top > 127;
template <Codec codec>
inline __m256i dot_products(__m256i codes, __m256i x) {
  __m256i pairs;
  if constexpr (kZeroIsOff<codec>) {  // of magnitudes, so that a pair's sum fits into 16 bits
    static_assert(affine_of(codec).zero == 128);
    const __m256i levels = _mm256_xor_si256(codes, all8(-128));
    pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(levels), _mm256_sign_epi8(x, levels));
  } else {
    pairs = _mm256_maddubs_epi16(codes, x);
  }
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

// A sum waits four cycles for its last addition: one row of x has two of them.
template <int M>
constexpr int kSums = M == 1 ? 2 : 1;
template <int N>
inline void clear(__m256 (&sums)[N]) {
  for (__m256& v : sums) v = _mm256_setzero_ps();
}
template <int N>
inline __m256 added(const __m256 (&sums)[N]) {
  return N == 1 ? sums[0] : _mm256_add_ps(sums[0], sums[N - 1]);
}

// One row of weights (`groups` of 32) times M rows of x.
template <Codec codec, int M>
inline void gemv_row(const std::uint8_t* row, std::int64_t groups, const Int8Row* x, float* out) {
  constexpr float kOffset = kHasMin<codec> ? 1.0f : -static_cast<float>(zero_of(codec));
  constexpr bool kOffsets = !kZeroIsOff<codec>;
  __m256 acc[M][kSums<M>], offsets[M];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) clear(acc[m]), offsets[m] = _mm256_setzero_ps();
  std::int64_t g = 0;
  for (; g + 8 <= groups; g += 8, row += kRunBytes<codec>) {
#pragma GCC unroll 8
    for (int i = 0; i < kRunBytes<codec>; i += 64) ahead(row + i);
    const Halves scale = run_scales<codec>(row);
    const Halves offset = kHasMin<codec> ? run_mins<codec>(row) : scale;
    Halves scales[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const float* xs = x[m].scale_sum + g * 2;
      scales[m] = {_mm256_mul_ps(scale.low, _mm256_moveldup_ps(_mm256_loadu_ps(xs))),
                   _mm256_mul_ps(scale.high, _mm256_moveldup_ps(_mm256_loadu_ps(xs + 8)))};
      if constexpr (kOffsets) {
        const float* sums = x[m].half_sums + g * 2;
        offsets[m] = _mm256_fmadd_ps(offset.low, _mm256_loadu_ps(sums), offsets[m]);
        offsets[m] = _mm256_fmadd_ps(offset.high, _mm256_loadu_ps(sums + 8), offsets[m]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i codes = run_codes<codec>(row, j);
      const int i = j % 4 * 2;
      const __m256i lanes = _mm256_setr_epi32(i, i, i, i, i + 1, i + 1, i + 1, i + 1);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const __m256i dots = dot_products<codec>(codes, load256(x[m].codes + (g + j) * 32));
        const __m256 s = _mm256_permutevar8x32_ps(j < 4 ? scales[m].low : scales[m].high, lanes);
        __m256& sum = acc[m][j % kSums<M>];
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), s, sum);
      }
    }
  }
  float rest[M] = {};
  Groups<codec> left(row);
  for (std::int64_t i = 0; g < groups; ++g, ++i) {
    const Group32 group = left.at(i);
    for (int m = 0; m < M; ++m) {
      const __m256i dots = dot_products<codec>(group.codes, load256(x[m].codes + g * 32));
      const __m256 s = _mm256_setr_m128(_mm_set1_ps(group.scale[0]), _mm_set1_ps(group.scale[1]));
      acc[m][0] =
          _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots),
                          _mm256_mul_ps(s, _mm256_set1_ps(x[m].scale_sum[g * 2])), acc[m][0]);
      for (int h = 0; h < 2; ++h)
        rest[m] += (kHasMin<codec> ? group.min[h] : group.scale[h]) * x[m].half_sums[g * 2 + h];
    }
  }
  for (int m = 0; m < M; ++m)
    out[m] += sum8(added(acc[m])) + (kOffsets ? kOffset * (sum8(offsets[m]) + rest[m]) : 0.0f);
}

// Rows are taken one after another: several at a time would share what is loaded of x, but break
// the stream that the hardware prefetcher follows, which costs up to twice the time.
template <Codec codec, int M>
inline void gemv_runs(const Source& w, std::int64_t n0, int count, const Int8Row* x, float* out) {
  const std::int64_t groups = w.cols / 32;
  const std::int64_t row_bytes = groups / kBlockGroups<codec> * kBlockBytes<codec>;
  const std::uint8_t* data = static_cast<const std::uint8_t*>(w.data) + n0 * row_bytes;
  for (int i = 0; i < count; ++i)
    gemv_row<codec, M>(data + i * row_bytes, groups, x, out + i * kVectorRows);
}

}  // namespace
}  // namespace supersonic::cpu
