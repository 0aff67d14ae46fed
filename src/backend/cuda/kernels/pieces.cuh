// Eight consecutive weights of a block, for each block format: the unit in which device code
// decodes. A piece is read as bytes (a block is only known to start at an even address), and its
// values are those of the codec's scalar decode(), bit for bit: the same operations in the same
// order, without contraction.
#pragma once
#include "backend/cuda/kernels/codec.h"
#include "backend/cuda/kernels/device.cuh"
#include "formats/list.h"

namespace supersonic::cuda {

__device__ inline float half_bits(f16 h) { return __half2float(__ushort_as_half(h.bits)); }
__device__ inline float affine(float scale, int q, float offset) {
  return __fadd_rn(__fmul_rn(scale, static_cast<float>(q)), offset);
}

template <Codec C>
struct Piece;

template <>
struct Piece<Codec::q4_0> : formats::Q4_0 {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const float d = half_bits(b.d);
    for (int i = 0; i < 8; ++i)
      out[i] = d * static_cast<float>((b.qs[piece % 2 * 8 + i] >> (piece / 2 * 4) & 15) - 8);
  }
};

template <>
struct Piece<Codec::q4_1> : formats::Q4_1 {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const float d = half_bits(b.d), m = half_bits(b.m);
    for (int i = 0; i < 8; ++i)
      out[i] = affine(d, b.qs[piece % 2 * 8 + i] >> (piece / 2 * 4) & 15, m);
  }
};

template <>
struct Piece<Codec::q5_0> : formats::Q5_0 {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const float d = half_bits(b.d);
    const int high = b.qh[piece];
    for (int i = 0; i < 8; ++i) {
      const int q = (b.qs[piece % 2 * 8 + i] >> (piece / 2 * 4) & 15) | (high >> i & 1) << 4;
      out[i] = d * static_cast<float>(q - 16);
    }
  }
};

template <>
struct Piece<Codec::q5_1> : formats::Q5_1 {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const float d = half_bits(b.d), m = half_bits(b.m);
    const int high = b.qh[piece];
    for (int i = 0; i < 8; ++i)
      out[i] =
          affine(d, (b.qs[piece % 2 * 8 + i] >> (piece / 2 * 4) & 15) | (high >> i & 1) << 4, m);
  }
};

template <>
struct Piece<Codec::q8_0> : formats::Q8_0 {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const float d = half_bits(b.d);
    for (int i = 0; i < 8; ++i) out[i] = d * static_cast<float>(b.qs[piece * 8 + i]);
  }
};

template <>
struct Piece<Codec::q2_k> : formats::Q2_K {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const int scales = b.scales[piece / 2], shift = piece % 16 / 4 * 2;
    const float scale = half_bits(b.d) * static_cast<float>(scales & 15);
    const float min = half_bits(b.dmin) * static_cast<float>(scales >> 4);
    for (int i = 0; i < 8; ++i)
      out[i] = affine(scale, b.qs[piece / 16 * 32 + piece % 4 * 8 + i] >> shift & 3, -min);
  }
};

template <>
struct Piece<Codec::q3_k> : formats::Q3_K {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const int shift = piece % 16 / 4 * 2, bit = piece / 4, first = piece % 4 * 8;
    const float d = half_bits(b.d) * static_cast<float>(scale(b, piece / 2));
    for (int i = 0; i < 8; ++i) {
      const int low = b.qs[piece / 16 * 32 + first + i] >> shift & 3,
                high = b.hmask[first + i] >> bit & 1;
      out[i] = d * static_cast<float>((low | high << 2) - 4);
    }
  }
};

template <>
struct Piece<Codec::q4_k> : formats::Q4_K {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const int group = piece / 4;
    const auto sm = formats::unpack_scale_min(b.scales, group);
    const float scale = half_bits(b.d) * static_cast<float>(sm.scale),
                min = half_bits(b.dmin) * static_cast<float>(sm.min);
    for (int i = 0; i < 8; ++i)
      out[i] =
          affine(scale, b.qs[group / 2 * 32 + piece % 4 * 8 + i] >> (group % 2 * 4) & 15, -min);
  }
};

template <>
struct Piece<Codec::q5_k> : formats::Q5_K {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const int group = piece / 4, first = piece % 4 * 8;
    const auto sm = formats::unpack_scale_min(b.scales, group);
    const float scale = half_bits(b.d) * static_cast<float>(sm.scale),
                min = half_bits(b.dmin) * static_cast<float>(sm.min);
    for (int i = 0; i < 8; ++i) {
      const int low = b.qs[group / 2 * 32 + first + i] >> (group % 2 * 4) & 15,
                high = b.qh[first + i] >> group & 1;
      out[i] = affine(scale, low | high << 4, -min);
    }
  }
};

template <>
struct Piece<Codec::q6_k> : formats::Q6_K {
  static __device__ void decode8(const Block& b, int piece, float* out) {
    const int half = piece / 16, r = piece % 16 * 8;
    const float d = half_bits(b.d) * static_cast<float>(b.scales[piece / 2]);
    for (int i = 0; i < 8; ++i) {
      const int low = b.ql[half * 64 + r % 64 + i] >> (r / 64 * 4) & 15;
      const int high = b.qh[half * 32 + r % 32 + i] >> (r / 32 * 2) & 3;
      out[i] = d * static_cast<float>((low | high << 4) - 32);
    }
  }
};

// The device's copy of a lattice (formats/iq_grids.h); a warp's lanes read many of its points at
// once, so it lies in global memory and is cached, not in constant memory.
template <class Table>
static __device__ const Table device_table{};

// A codec that decodes by pieces itself.
template <class F>
struct PieceOf : F {
  static __device__ void decode8(const typename F::Block& b, int piece, float* out) {
    if constexpr (requires { typename F::Table; }) {
      F::decode8(b, piece, out, device_table<typename F::Table>);
    } else {
      F::decode8(b, piece, out);
    }
  }
};
template <>
struct Piece<Codec::iq2_xxs> : PieceOf<formats::IQ2_XXS> {};
template <>
struct Piece<Codec::iq2_xs> : PieceOf<formats::IQ2_XS> {};
template <>
struct Piece<Codec::iq3_xxs> : PieceOf<formats::IQ3_XXS> {};
template <>
struct Piece<Codec::iq1_s> : PieceOf<formats::IQ1_S> {};
template <>
struct Piece<Codec::iq4_nl> : PieceOf<formats::IQ4_NL> {};
template <>
struct Piece<Codec::iq3_s> : PieceOf<formats::IQ3_S> {};
template <>
struct Piece<Codec::iq2_s> : PieceOf<formats::IQ2_S> {};
template <>
struct Piece<Codec::iq4_xs> : PieceOf<formats::IQ4_XS> {};
template <>
struct Piece<Codec::iq1_m> : PieceOf<formats::IQ1_M> {};
template <>
struct Piece<Codec::tq1_0> : PieceOf<formats::TQ1_0> {};
template <>
struct Piece<Codec::tq2_0> : PieceOf<formats::TQ2_0> {};
template <>
struct Piece<Codec::mxfp4> : PieceOf<formats::MXFP4> {};
template <>
struct Piece<Codec::nvfp4> : PieceOf<formats::NVFP4> {};
template <>
struct Piece<Codec::q1_0> : PieceOf<formats::Q1_0> {};
template <>
struct Piece<Codec::q2_0> : PieceOf<formats::Q2_0> {};

}  // namespace supersonic::cuda
