// Strips: 32 weights of a block as one lane of the one-row product takes them. load() brings the
// strip's words (aligned down to four bytes, then shifted, where blocks lie at odd pairs of bytes);
// dot() multiplies them with 32 activations. Codes become floats without conversion: put under the
// exponent of 1.0 they read 1 + q / 2^b. What is left of ones and offsets comes from the sums of
// the activations, which all columns share.
#pragma once
#include "backend/cuda/kernels/nf4.cuh"
#include "backend/cuda/kernels/pieces.cuh"

namespace supersonic::cuda {

constexpr std::uint32_t kOne = 0x3f800000;

// Where a row of weights lies.
struct StripRow {
  const std::uint8_t*
      codes;  // the row's first block; of NF4, which has no rows, the matrix's first code
  const Planes* planes;
  std::int64_t first;  // flat index of the row's first weight
};

// The activations of a strip: four granules of eight, their sums.
struct StripX {
  float x[4][8];
  float sum[4];
};

// Words at any even address, from aligned loads; reads within the aligned words that hold the bytes
// asked for.
template <int words>
__device__ void load_words(const std::uint8_t* p, std::uint32_t (&out)[words]) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  const auto* from = reinterpret_cast<const std::uint32_t*>(address & ~std::uintptr_t{3});
  const unsigned shift = address & 2 ? 16 : 0;
#pragma unroll
  for (int i = 0; i < words; ++i) out[i] = __ldg(from + i);
  if (shift == 0) return;
  const std::uint32_t last = __ldg(from + words);
#pragma unroll
  for (int i = 0; i < words; ++i)
    out[i] = __funnelshift_r(out[i], i + 1 < words ? out[i + 1] : last, 16);
}
__device__ inline float half_at(const std::uint8_t* p) {
  return __half2float(__ushort_as_half(__ldg(reinterpret_cast<const std::uint16_t*>(p))));
}
__device__ inline float2 halves(std::uint32_t pair) {
  return make_float2(__half2float(__ushort_as_half(static_cast<unsigned short>(pair))),
                     __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16))));
}

// Byte b of a word with its top bit at bit 22, the highest of a float's mantissa.
template <int b>
__device__ std::uint32_t under_exponent(std::uint32_t w) {
  if constexpr (b == 0)
    return w << 15;
  else if constexpr (b == 1)
    return w << 7;
  else if constexpr (b == 2)
    return w >> 1;
  else
    return w >> 9;
}

// Four bytes of `bits` bits each, as q / 2^bits - offset, times x.
template <int bits>
__device__ float packed_dot(std::uint32_t w, const float* x, float offset) {
  constexpr std::uint32_t mask = ((1u << bits) - 1) << (23 - bits);
  constexpr int shift = 23 - bits;
  const float one = 1 + offset;
  float sum = x[0] * (__uint_as_float((w << shift & mask) | kOne) - one);
  if constexpr (shift >= 8) sum += x[1] * (__uint_as_float((w << (shift - 8) & mask) | kOne) - one);
  if constexpr (shift >= 16)
    sum += x[2] * (__uint_as_float((w << (shift - 16) & mask) | kOne) - one);
  else
    sum += x[2] * (__uint_as_float((w >> (16 - shift) & mask) | kOne) - one);
  return sum + x[3] * (__uint_as_float((w >> (24 - shift) & mask) | kOne) - one);
}
// Bit i of four becomes bit 4 of byte i.
__device__ inline std::uint32_t fifth_bits(std::uint32_t four) {
  return ((four & 15) * 0x00204081u & 0x01010101u) << 4;
}

// Adds low nibbles * x as q / 256 x, high nibbles * y as (1 + q / 16) y, of the four bytes of a
// word. The ones of the low nibbles are taken off first: they would cost four more bits.
__device__ inline void add_nibbles(std::uint32_t w, const float* x, const float* y, float& low,
                                   float& high) {
  auto add = [&](std::uint32_t s, float xi, float yi) {
    low += xi * (__uint_as_float((s & 0x00078000) | kOne) - 1);
    high += yi * __uint_as_float((s & 0x00780000) | kOne);
  };
  add(under_exponent<0>(w), x[0], y[0]);
  add(under_exponent<1>(w), x[1], y[1]);
  add(under_exponent<2>(w), x[2], y[2]);
  add(under_exponent<3>(w), x[3], y[3]);
}
struct NibbleDots {
  float low, high;  // sums of q x
};
// 16 bytes of nibbles: low ones meet granules 0 and 1, high ones 2 and 3.
__device__ inline NibbleDots nibble_dots(const std::uint32_t* w, const StripX& s) {
  float low = 0, high = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    add_nibbles(w[i], &s.x[i / 2][i % 2 * 4], &s.x[2 + i / 2][i % 2 * 4], low, high);
  return {256 * low, 16 * (high - (s.sum[2] + s.sum[3]))};
}
__device__ inline float all_sums(const StripX& s) {
  return (s.sum[0] + s.sum[1]) + (s.sum[2] + s.sum[3]);
}

template <Codec C>
struct Strip;

// granule(unit, g): where the strip's granule g lies in the row.
struct PlainStrip {
  static __device__ int granule(int unit, int g) { return unit * 32 + g * 8; }
};

template <>
struct Strip<Codec::q4_0> : PlainStrip {
  struct Raw {
    float d;
    std::uint32_t q[4];
  };
  static __device__ Raw load(const StripRow& row, int unit) {
    Raw r;
    r.d = half_at(row.codes + unit * 18);
    load_words(row.codes + unit * 18 + 2, r.q);
    return r;
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    const NibbleDots n = nibble_dots(r.q, s);
    return r.d * (n.low + n.high - 8 * all_sums(s));
  }
};

template <>
struct Strip<Codec::q4_1> : PlainStrip {
  struct Raw {
    std::uint32_t dm, q[4];
  };
  static __device__ Raw load(const StripRow& row, int unit) {
    std::uint32_t w[5];
    load_words(row.codes + unit * 20, w);
    return {w[0], {w[1], w[2], w[3], w[4]}};
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    const NibbleDots n = nibble_dots(r.q, s);
    const float2 dm = halves(r.dm);
    return dm.x * (n.low + n.high) + dm.y * all_sums(s);
  }
};

template <>
struct Strip<Codec::q8_0> : PlainStrip {
  struct Raw {
    float d;
    std::uint32_t q[8];
  };
  static __device__ Raw load(const StripRow& row, int unit) {
    Raw r;
    r.d = half_at(row.codes + unit * 34);
    load_words(row.codes + unit * 34 + 2, r.q);
    return r;
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      sum += packed_dot<8>(r.q[i] ^ 0x80808080u, &s.x[i / 2][i % 2 * 4], 0.5f);
    return r.d * 256 * sum;
  }
};

// Codes and offsets of groups 2 pair and 2 pair + 1, of which a strip has a half each. head: d,
// dmin, and twelve bytes of scales and minima (formats/block.h has their packing).
__device__ inline float scaled_groups(const uint4& head, int pair, const NibbleDots& n,
                                      const StripX& s) {
  const int shift = pair % 2 * 16;
  std::uint32_t scales, mins;
  if (pair < 2) {
    scales = head.y >> shift & 0x3f3f, mins = head.z >> shift & 0x3f3f;
  } else {
    const std::uint32_t low = head.w >> shift;
    scales = (low & 0x0f0f) | (head.y >> shift & 0xc0c0) >> 2;
    mins = (low >> 4 & 0x0f0f) | (head.z >> shift & 0xc0c0) >> 2;
  }
  const float2 d = halves(head.x);
  const float codes =
      static_cast<float>(scales & 255) * n.low + static_cast<float>(scales >> 8) * n.high;
  const float offsets = static_cast<float>(mins & 255) * (s.sum[0] + s.sum[1]) +
                        static_cast<float>(mins >> 8) * (s.sum[2] + s.sum[3]);
  return d.x * codes - d.y * offsets;
}

// A strip is 16 bytes of codes: 16 weights of one group in the low nibbles, 16 of the next in the
// high ones.
template <>
struct Strip<Codec::q4_k> {
  struct Raw {
    uint4 head, q;  // head: d, dmin, twelve bytes of scales
    int pair;
  };
  static __device__ int granule(int unit, int g) {
    return unit / 8 * 256 + unit % 8 / 2 * 64 + g / 2 * 32 + unit % 2 * 16 + g % 2 * 8;
  }
  static __device__ Raw load(const StripRow& row, int unit) {
    const auto* block = reinterpret_cast<const uint4*>(row.codes + unit / 8 * 144);
    return {__ldg(block), __ldg(block + 1 + unit % 8), unit % 8 / 2};
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    const std::uint32_t q[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
    const NibbleDots n = nibble_dots(q, s);
    return scaled_groups(r.head, r.pair, n, s);
  }
};

// A strip is eight columns of a half's four rows of 32 weights, which share bytes.
template <>
struct Strip<Codec::q6_k> {
  struct Raw {
    std::uint32_t low[2], mid[2], high[2];  // ql of rows 0 and 2, of rows 1 and 3, and qh
    std::int8_t scales[4];
    float d;
  };
  static __device__ int granule(int unit, int g) {
    return unit / 8 * 256 + unit % 8 / 4 * 128 + g * 32 + unit % 4 * 8;
  }
  static __device__ Raw load(const StripRow& row, int unit) {
    const std::uint8_t* block = row.codes + unit / 8 * 210;
    const int half = unit % 8 / 4, c = unit % 4;
    Raw r;
    load_words(block + half * 64 + c * 8, r.low);
    load_words(block + half * 64 + 32 + c * 8, r.mid);
    load_words(block + 128 + half * 32 + c * 8, r.high);
#pragma unroll
    for (int t = 0; t < 4; ++t)
      r.scales[t] = static_cast<std::int8_t>(__ldg(block + 192 + half * 8 + t * 2 + c / 2));
    r.d = half_at(block + 208);
    return r;
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    float sums[4] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t low = r.low[i], mid = r.mid[i], high = r.high[i];
      sums[0] += packed_dot<6>((low & 0x0f0f0f0f) | (high & 0x03030303) << 4, &s.x[0][i * 4], 0.5f);
      sums[1] += packed_dot<6>((mid & 0x0f0f0f0f) | (high & 0x0c0c0c0c) << 2, &s.x[1][i * 4], 0.5f);
      sums[2] += packed_dot<6>((low >> 4 & 0x0f0f0f0f) | (high & 0x30303030), &s.x[2][i * 4], 0.5f);
      sums[3] +=
          packed_dot<6>((mid >> 4 & 0x0f0f0f0f) | (high >> 2 & 0x30303030), &s.x[3][i * 4], 0.5f);
    }
    float total = 0;
#pragma unroll
    for (int t = 0; t < 4; ++t) total += static_cast<float>(r.scales[t]) * sums[t];
    return r.d * 64 * total;
  }
};

// As Q4_K, with a fifth bit of each code in another 16 bytes.
template <>
struct Strip<Codec::q5_k> {
  struct Raw {
    uint4 head, high, q;
    int pair;
  };
  static __device__ int granule(int unit, int g) { return Strip<Codec::q4_k>::granule(unit, g); }
  static __device__ Raw load(const StripRow& row, int unit) {
    const auto* block = reinterpret_cast<const uint4*>(row.codes + unit / 8 * 176);
    return {__ldg(block), __ldg(block + 1 + unit % 2), __ldg(block + 3 + unit % 8), unit % 8 / 2};
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    const std::uint32_t q[4] = {r.q.x, r.q.y, r.q.z, r.q.w},
                        high[4] = {r.high.x, r.high.y, r.high.z, r.high.w};
    NibbleDots n{0, 0};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t bits = high[i] >> (2 * r.pair);
      n.low +=
          packed_dot<5>((q[i] & 0x0f0f0f0f) | (bits & 0x01010101) << 4, &s.x[i / 2][i % 2 * 4], 0);
      n.high += packed_dot<5>((q[i] >> 4 & 0x0f0f0f0f) | (bits & 0x02020202) << 3,
                              &s.x[2 + i / 2][i % 2 * 4], 0);
    }
    n.low *= 32, n.high *= 32;
    return scaled_groups(r.head, r.pair, n, s);
  }
};

// 32 codes of five bits: the word of fifth bits, then 16 bytes of nibbles. offset: what is taken
// off each code, over 32.
__device__ inline float five_bit_dot(std::uint32_t high, const std::uint32_t* q, const StripX& s,
                                     float offset) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum += packed_dot<5>((q[i] & 0x0f0f0f0f) | fifth_bits(high >> (4 * i)), &s.x[i / 2][i % 2 * 4],
                         offset);
    sum += packed_dot<5>((q[i] >> 4 & 0x0f0f0f0f) | fifth_bits(high >> (16 + 4 * i)),
                         &s.x[2 + i / 2][i % 2 * 4], offset);
  }
  return 32 * sum;
}

template <>
struct Strip<Codec::q5_0> : PlainStrip {
  struct Raw {
    float d;
    std::uint32_t q[5];
  };
  static __device__ Raw load(const StripRow& row, int unit) {
    Raw r;
    r.d = half_at(row.codes + unit * 22);
    load_words(row.codes + unit * 22 + 2, r.q);
    return r;
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    return r.d * five_bit_dot(r.q[0], r.q + 1, s, 0.5f);
  }
};

template <>
struct Strip<Codec::q5_1> : PlainStrip {
  struct Raw {
    std::uint32_t w[6];
  };
  static __device__ Raw load(const StripRow& row, int unit) {
    Raw r;
    load_words(row.codes + unit * 24, r.w);
    return r;
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    const float2 dm = halves(r.w[0]);
    return dm.x * five_bit_dot(r.w[1], r.w + 2, s, 0) + dm.y * all_sums(s);
  }
};

// Values of the table come from the lane that holds them: every lane of the warp must take part.
template <bool nested>
struct Nf4Strip : PlainStrip {
  struct Raw {
    uint4 q;
    float scale;
  };
  static __device__ Raw load(const StripRow& row, int unit) {
    const std::int64_t at = row.first + unit * 32;
    return {__ldg(reinterpret_cast<const uint4*>(row.codes + at / 2)),
            nf4_scale<nested>(nf4_planes(*row.planes, nested), at / formats::Nf4::weights)};
  }
  static __device__ float dot(const Raw& r, const StripX& s) {
    const float value = nf4_value(threadIdx.x % 16);
    const std::uint32_t q[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const std::uint32_t code = q[i / 8] >> (i % 8 / 2 * 8 + (i % 2 ? 0 : 4));
      sum += s.x[i / 8][i % 8] * __shfl_sync(0xffffffffu, value, static_cast<int>(code), 16);
    }
    return r.scale * sum;
  }
};
template <>
struct Strip<Codec::nf4> : Nf4Strip<true> {};
template <>
struct Strip<Codec::nf4_plain> : Nf4Strip<false> {};

}  // namespace supersonic::cuda
