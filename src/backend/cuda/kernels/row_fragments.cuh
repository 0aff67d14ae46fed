// Fragments: packed weights as the left operand of mma.sync, for products of one to eight rows.
// A warp multiplies 16 rows of weights with 256 values of K at a time; their bytes lie in shared
// memory, kStride from row to row, so that lanes meet no bank twice. Lane 4 g + t has rows g and
// g + 8 and of each 16 of K four that stand beside each other. Codes become bf16 by putting them
// under the exponent of 128: 128 + q is exact for seven bits. The 128 and what else stands off the
// code are taken off with the sums of the activations; scales meet the sums of a group in fp32. So
// nothing is rounded but NF4's table (to bf16).
#pragma once
#include "backend/cuda/kernels/mma.cuh"
#include "backend/cuda/kernels/nf4.cuh"

namespace supersonic::cuda {

constexpr int kChunk = 256;  // of K
constexpr int kTileRows = 16;

// The activations in fragment order as a lane sees them: x of its column, sums of its columns.
template <bool single>
struct RowX {
  static constexpr int columns = single ? 1 : 2;
  const std::uint8_t* x;  // of column lane / 4, at K = 0
  const float* sums;      // of groups; column 2 t
  template <class T>
  __device__ T at(int k) const {
    return *reinterpret_cast<const T*>(x + 2 * k);
  }
  __device__ void group_sums(int group, float (&s)[2]) const {
    if constexpr (single) {
      s[0] = s[1] = sums[group];
    } else {
      const float2 pair = *reinterpret_cast<const float2*>(sums + group * 8);
      s[0] = pair.x, s[1] = pair.y;
    }
  }
};

// Where the weights of a lane's two rows lie, and what they sum to.
template <bool single>
struct RowSums {
  float v[2][RowX<single>::columns] = {};
  // v += factor * other
  __device__ void add(float factor, const RowSums& other) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int c = 0; c < RowX<single>::columns; ++c)
        v[r][c] = fmaf(factor, other.v[r][c], v[r][c]);
  }
  // v += scale * d of the lane's rows
  __device__ void add(float scale0, float scale1, const float (&d)[4]) {
#pragma unroll
    for (int c = 0; c < RowX<single>::columns; ++c) {
      v[0][c] = fmaf(scale0, d[c], v[0][c]);
      v[1][c] = fmaf(scale1, d[2 + c], v[1][c]);
    }
  }
  // v += scale * s
  __device__ void add_sums(float scale0, float scale1, const float (&s)[2]) {
#pragma unroll
    for (int c = 0; c < RowX<single>::columns; ++c) {
      v[0][c] = fmaf(scale0, s[c], v[0][c]);
      v[1][c] = fmaf(scale1, s[c], v[1][c]);
    }
  }
};

// What NF4 looks up in shared memory.
struct Nf4Tables {
  const std::uint32_t* pairs;  // by byte of codes, two bf16; 32 words apart: each lane has its own
  const float* map;            // nested: of the scales' codes
  float offset[2];             // nested: of the scales of rows g and g + 8
};

struct RowPair {
  const std::uint8_t* row[2];  // rows g and g + 8 in shared memory
  Nf4Tables nf4;
};

// d += a * b; a0, a1: the first two of K of rows g and g + 8, a2, a3: the next two.
__device__ inline void fragment_product(float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                        std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                        std::uint32_t b1) {
  const std::uint32_t a[4] = {a0, a1, a2, a3};
  multiply_add(d, a, b0, b1);
}
// Four bytes below 128 a row, as 128 + q.
__device__ inline void byte_product(float (&d)[4], std::uint32_t w0, std::uint32_t w1, uint2 x) {
  constexpr std::uint32_t exponent = 0x43434343;
  fragment_product(d, __byte_perm(w0, exponent, 0x4140), __byte_perm(w1, exponent, 0x4140),
                   __byte_perm(w0, exponent, 0x4342), __byte_perm(w1, exponent, 0x4342), x.x, x.y);
}
__device__ inline std::uint32_t low_nibbles(std::uint32_t w) { return w & 0x0f0f0f0f; }
__device__ inline std::uint32_t high_nibbles(std::uint32_t w) { return w >> 4 & 0x0f0f0f0f; }
__device__ inline std::uint32_t word_at(const std::uint8_t* p) {
  return *reinterpret_cast<const std::uint32_t*>(p);
}
// A word at an offset that is even and known when compiled.
template <int offset>
__device__ std::uint32_t even_word(const std::uint8_t* p) {
  if constexpr (offset % 4 == 0) return word_at(p + offset);
  return __byte_perm(word_at(p + offset - 2), word_at(p + offset + 2), 0x5432);
}
template <int offset>
__device__ float half_of(const std::uint8_t* p) {
  return __half2float(__ushort_as_half(*reinterpret_cast<const std::uint16_t*>(p + offset)));
}
__device__ inline float2 two_halves(std::uint32_t pair) {
  return make_float2(__half2float(__ushort_as_half(static_cast<unsigned short>(pair))),
                     __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16))));
}
// 2^23 + byte i of w
template <int i>
__device__ float byte_over_2_23(std::uint32_t w) {
  return __uint_as_float(__byte_perm(w, 0x4b000000, 0x7440 + i));
}

// kBytes: of a row's chunk in memory; kPieces: 16-byte pieces that hold them (kShifted: at any even
// address, so that the pieces begin up to 14 bytes earlier); kGroup: weights of a sum; kPad: bytes
// between rows of x.
template <Codec C>
struct Fragment;

// Calls f(integral_constant<i>) for i below n.
template <int n, int i = 0, class F>
__device__ void unrolled(const F& f) {
  if constexpr (i < n) {
    f(std::integral_constant<int, i>{});
    unrolled<n, i + 1>(f);
  }
}

struct PlainFragment {
  static constexpr bool kShifted = false;
  static constexpr int kGroup = 32, kPad = 32;
};

// Scales and minima of groups 2 p and 2 p + 1: bytes 0 and 1 of each word.
template <int p>
__device__ void group_codes(const uint4& head, std::uint32_t& scales, std::uint32_t& mins) {
  constexpr int shift = p % 2 * 16;
  if constexpr (p < 2) {
    scales = head.y >> shift & 0x3f3f, mins = head.z >> shift & 0x3f3f;
  } else {
    const std::uint32_t low = head.w >> shift;
    scales = (low & 0x0f0f) | (head.y >> shift & 0xc0c0) >> 2;
    mins = (low >> 4 & 0x0f0f) | (head.z >> shift & 0xc0c0) >> 2;
  }
}

// Q4_K and Q5_K: fifth bits, where there are any, lie before the nibbles.
template <bool five>
struct SuperFragment {
  static constexpr bool kShifted = false;
  static constexpr int kGroup = 32, kPad = 64, kBytes = five ? 176 : 144, kPieces = kBytes / 16,
                       kStride = five ? 224 : 160, kCodes = five ? 48 : 16;

  template <bool single>
  static __device__ void multiply(const RowPair& w, const RowX<single>& x, int k0, int t,
                                  RowSums<single>& sum) {
    uint4 head[2];
    uint2 fifth[2] = {};
    float2 d[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      head[r] = *reinterpret_cast<const uint4*>(w.row[r]);
      d[r] = two_halves(head[r].x);
      if constexpr (five) fifth[r] = *reinterpret_cast<const uint2*>(w.row[r] + 16 + 8 * t);
    }
    unrolled<4>([&](auto pair) {
      constexpr int p = pair.value;
      uint2 q[2];
      std::uint32_t scales[2], mins[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        q[r] = *reinterpret_cast<const uint2*>(w.row[r] + kCodes + 32 * p + 8 * t);
        group_codes<p>(head[r], scales[r], mins[r]);
      }
      unrolled<2>([&](auto half) {
        constexpr int h = half.value;
        std::uint32_t a[2][2];
        float scale[2], least[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          a[r][0] = h ? high_nibbles(q[r].x) : low_nibbles(q[r].x);
          a[r][1] = h ? high_nibbles(q[r].y) : low_nibbles(q[r].y);
          if constexpr (five) {
            a[r][0] |= (fifth[r].x >> (2 * p + h) & 0x01010101) << 4;
            a[r][1] |= (fifth[r].y >> (2 * p + h) & 0x01010101) << 4;
          }
          // d * b = d * (2^23 + b) - d * 2^23, the product and the difference exact
          scale[r] = fmaf(d[r].x, byte_over_2_23<h>(scales[r]), -8388608.0f * d[r].x);
          least[r] = fmaf(-d[r].y, byte_over_2_23<h>(mins[r]), 8388608.0f * d[r].y);
        }
        const int k = k0 + 64 * p + 32 * h;
        const uint4 v = x.template at<uint4>(k + 8 * t);
        float s[2], sums[4] = {};
        x.group_sums(k / kGroup, s);
        byte_product(sums, a[0][0], a[1][0], make_uint2(v.x, v.y));
        byte_product(sums, a[0][1], a[1][1], make_uint2(v.z, v.w));
        sum.add(scale[0], scale[1], sums);
        sum.add_sums(fmaf(-128, scale[0], least[0]), fmaf(-128, scale[1], least[1]), s);
      });
    });
  }
};
template <>
struct Fragment<Codec::q4_k> : SuperFragment<false> {};
template <>
struct Fragment<Codec::q5_k> : SuperFragment<true> {};

template <>
struct Fragment<Codec::q6_k> {
  static constexpr bool kShifted = true;
  static constexpr int kGroup = 16, kPad = 32, kBytes = 210, kPieces = 14, kStride = 240;

  // A word of the row's block, which lies at any even address.
  struct Row {
    const std::uint8_t* aligned;
    unsigned shift;
    explicit __device__ Row(const std::uint8_t* p) {
      const auto address = reinterpret_cast<std::uintptr_t>(p);
      aligned = p - (address & 2), shift = address & 2 ? 16 : 0;
    }
    __device__ std::uint32_t word(int offset) const {
      return __funnelshift_r(word_at(aligned + offset), word_at(aligned + offset + 4), shift);
    }
  };

  template <bool single>
  static __device__ void multiply(const RowPair& w, const RowX<single>& x, int k0, int t,
                                  RowSums<single>& sum) {
    const Row row[2] = {Row(w.row[0]), Row(w.row[1])};
    RowSums<single> chunk, offsets;
    unrolled<2>([&](auto half) {
      constexpr int h = half.value;
      std::uint32_t scales[2][2];  // of 8 groups, plus 128
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int i = 0; i < 2; ++i) scales[r][i] = row[r].word(192 + 8 * h + 4 * i) ^ 0x80808080u;
      unrolled<2>([&](auto part) {
        constexpr int i = part.value;
        std::uint32_t a[4][2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const std::uint32_t low = row[r].word(h * 64 + i * 16 + 4 * t),
                              mid = row[r].word(h * 64 + 32 + i * 16 + 4 * t),
                              high = row[r].word(128 + h * 32 + i * 16 + 4 * t);
          a[0][r] = low_nibbles(low) | (high << 4 & 0x30303030);
          a[1][r] = low_nibbles(mid) | (high << 2 & 0x30303030);
          a[2][r] = high_nibbles(low) | (high & 0x30303030);
          a[3][r] = high_nibbles(mid) | (high >> 2 & 0x30303030);
        }
        unrolled<4>([&](auto quarter) {
          constexpr int j = quarter.value, group = 2 * j + i;
          const int k = k0 + 128 * h + 16 * group;
          float s[2], sums[4] = {};
          x.group_sums(k / kGroup, s);
          byte_product(sums, a[j][0], a[j][1], x.template at<uint2>(k + 4 * t));
          const float scale0 = byte_over_2_23<group % 4>(scales[0][group / 4]) - 8388736.0f,
                      scale1 = byte_over_2_23<group % 4>(scales[1][group / 4]) - 8388736.0f;
          chunk.add(scale0, scale1, sums);
          offsets.add_sums(scale0, scale1, s);
        });
      });
    });
    chunk.add(-160, offsets);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float d =
          __half2float(__ushort_as_half(static_cast<unsigned short>(row[r].word(208) & 0xffff)));
#pragma unroll
      for (int c = 0; c < RowX<single>::columns; ++c)
        sum.v[r][c] = fmaf(d, chunk.v[r][c], sum.v[r][c]);
    }
  }
};

template <>
struct Fragment<Codec::q4_0> : PlainFragment {
  static constexpr int kBytes = 144, kPieces = 9, kStride = 144;
  template <bool single>
  static __device__ void multiply(const RowPair& w, const RowX<single>& x, int k0, int t,
                                  RowSums<single>& sum) {
    RowSums<single> offsets;
    unrolled<8>([&](auto block) {
      constexpr int at = 18 * block.value;
      const int k = k0 + 32 * block.value;
      const std::uint32_t q0 = even_word<at + 2>(w.row[0] + 4 * t),
                          q1 = even_word<at + 2>(w.row[1] + 4 * t);
      const float d0 = half_of<at>(w.row[0]), d1 = half_of<at>(w.row[1]);
      float s[2], sums[4] = {};
      x.group_sums(k / kGroup, s);
      byte_product(sums, low_nibbles(q0), low_nibbles(q1), x.template at<uint2>(k + 4 * t));
      byte_product(sums, high_nibbles(q0), high_nibbles(q1), x.template at<uint2>(k + 16 + 4 * t));
      sum.add(d0, d1, sums);
      offsets.add_sums(d0, d1, s);
    });
    sum.add(-136, offsets);
  }
};

template <>
struct Fragment<Codec::q4_1> : PlainFragment {
  static constexpr int kBytes = 160, kPieces = 10, kStride = 176;
  template <bool single>
  static __device__ void multiply(const RowPair& w, const RowX<single>& x, int k0, int t,
                                  RowSums<single>& sum) {
    unrolled<8>([&](auto block) {
      constexpr int at = 20 * block.value;
      const int k = k0 + 32 * block.value;
      const std::uint32_t q0 = word_at(w.row[0] + at + 4 + 4 * t),
                          q1 = word_at(w.row[1] + at + 4 + 4 * t);
      const float2 d0 = two_halves(word_at(w.row[0] + at)), d1 = two_halves(word_at(w.row[1] + at));
      float s[2], sums[4] = {};
      x.group_sums(k / kGroup, s);
      byte_product(sums, low_nibbles(q0), low_nibbles(q1), x.template at<uint2>(k + 4 * t));
      byte_product(sums, high_nibbles(q0), high_nibbles(q1), x.template at<uint2>(k + 16 + 4 * t));
      sum.add(d0.x, d1.x, sums);
      sum.add_sums(fmaf(-128, d0.x, d0.y), fmaf(-128, d1.x, d1.y), s);
    });
  }
};

// Eight bits do not fit under the exponent: nibbles apart, of the code plus 128.
template <>
struct Fragment<Codec::q8_0> : PlainFragment {
  static constexpr int kBytes = 272, kPieces = 17, kStride = 272;
  template <bool single>
  static __device__ void multiply(const RowPair& w, const RowX<single>& x, int k0, int t,
                                  RowSums<single>& sum) {
    RowSums<single> offsets;
    unrolled<8>([&](auto block) {
      constexpr int at = 34 * block.value;
      const int k = k0 + 32 * block.value;
      const float d0 = half_of<at>(w.row[0]), d1 = half_of<at>(w.row[1]);
      float s[2], low[4] = {}, high[4] = {};
      x.group_sums(k / kGroup, s);
      unrolled<2>([&](auto half) {
        constexpr int from = at + 2 + 16 * half.value;
        const std::uint32_t q0 = even_word<from>(w.row[0] + 4 * t),
                            q1 = even_word<from>(w.row[1] + 4 * t);
        const uint2 v = x.template at<uint2>(k + 16 * half.value + 4 * t);
        byte_product(low, low_nibbles(q0), low_nibbles(q1), v);
        byte_product(high, high_nibbles(q0) ^ 0x08080808u, high_nibbles(q1) ^ 0x08080808u, v);
      });
#pragma unroll
      for (int i = 0; i < 4; ++i) low[i] = fmaf(16, high[i], low[i]);
      sum.add(d0, d1, low);
      offsets.add_sums(d0, d1, s);
    });
    sum.add(-2304, offsets);  // 128 + 16 * 128, and the 128 that codes got
  }
};

// A byte's two codes become two values of the table at once. The scales of a row's chunk (four) lie
// behind its codes: as they are or, nested, four codes and the scale that these share.
template <bool nested>
struct Nf4Fragment {
  static constexpr bool kShifted = false;
  static constexpr int kGroup = 32, kPad = 16, kBytes = 128, kPieces = 8, kStride = 160;
  template <bool single>
  static __device__ void multiply(const RowPair& w, const RowX<single>& x, int k0, int t,
                                  RowSums<single>& sum) {
    uint4 scales[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) scales[r] = *reinterpret_cast<const uint4*>(w.row[r] + kBytes);
    unrolled<4>([&](auto block) {
      constexpr int j = block.value;
      uint2 q[2];
      float scale[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        q[r] = *reinterpret_cast<const uint2*>(w.row[r] + 32 * j + 8 * t);
        const std::uint32_t words[4] = {scales[r].x, scales[r].y, scales[r].z, scales[r].w};
        scale[r] = nested ? __fadd_rn(__fmul_rn(w.nf4.map[words[0] >> (8 * j) & 255],
                                                __uint_as_float(words[1])),
                                      w.nf4.offset[r])
                          : __uint_as_float(words[j]);
      }
      const int k = k0 + 64 * j + 16 * t;
      const uint4 low = x.template at<uint4>(k), high = x.template at<uint4>(k + 8);
      float sums[4] = {};
      auto pair = [&](std::uint32_t word, int byte) {
        return w.nf4.pairs[(word >> (8 * byte) & 255) * 32];
      };
      auto four = [&](std::uint32_t word0, std::uint32_t word1, int byte, std::uint32_t b0,
                      std::uint32_t b1) {
        fragment_product(sums, pair(word0, byte), pair(word1, byte), pair(word0, byte + 1),
                         pair(word1, byte + 1), b0, b1);
      };
      four(q[0].x, q[1].x, 0, low.x, low.y);
      four(q[0].x, q[1].x, 2, low.z, low.w);
      four(q[0].y, q[1].y, 0, high.x, high.y);
      four(q[0].y, q[1].y, 2, high.z, high.w);
      sum.add(scale[0], scale[1], sums);
    });
  }
};
template <>
struct Fragment<Codec::nf4> : Nf4Fragment<true> {};
template <>
struct Fragment<Codec::nf4_plain> : Nf4Fragment<false> {};

}  // namespace supersonic::cuda
