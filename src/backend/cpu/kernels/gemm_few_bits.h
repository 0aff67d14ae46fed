// Groups of 32 weights of the formats with lattices or few levels, in plain code: Q2_K, IQ1_*,
// IQ2_*, IQ3_*, NVFP4, TQ1_0, TQ2_0, Q1_0, Q2_0. Part of gemm_generic.h.
//
// A point of a lattice is one load of eight (or four) bytes, and its signs are applied to all of
// them at once: with m seven ones where the sign is set, (c ^ m) + (m & 1) is c or 128 - c.
#pragma once
#include "backend/cpu/kernels/gemm_bits.h"
#include "backend/cpu/kernels/gemm_lattices.h"

namespace supersonic::cpu {
namespace {

// Signs of the i-quants, seven in the low bits of each byte: the eighth is their parity.
inline std::uint32_t with_eighth(std::uint32_t seven) {
  std::uint32_t parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | (parity & 0x01010101) << 7;
}
// The same from four times seven bits, one after another from the lowest bit up.
inline std::uint32_t signs_of_four(std::uint32_t bits) {
  return with_eighth((bits & 0x7f) | (bits << 1 & 0x7f00) | (bits << 2 & 0x7f0000) |
                     (bits << 3 & 0x7f000000));
}

// Eight bits -> eight bytes of ones or zeros, the lowest bit first.
inline std::uint64_t byte_mask(std::uint32_t bits) {
  constexpr std::uint64_t kOnes = 0x0101010101010101, kEach = 0x8040201008040201;
  constexpr std::uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  const std::uint64_t spread = bits * kOnes & kEach;  // byte i: bit i or nothing
  return ((((spread & kLow) + kLow) | spread) >> 7 & kOnes) * 255;
}
inline void put_point(std::uint64_t point, std::uint32_t signs, std::uint8_t* codes) {
  const std::uint64_t m = byte_mask(signs & 255);
  point = (point ^ (m & 0x7f7f7f7f7f7f7f7f)) + (m & 0x0101010101010101);
  __builtin_memcpy(codes, &point, 8);
}

// The scale of an NVFP4 code, halved: see formats/nvfp4.h.
inline float e4m3_half(std::uint8_t s) {
  return s == 127 ? 0 : from_f16(static_cast<std::uint16_t>((s & 127) << 7)) * 128;
}

// ---- scales: of group `sub` in the block of 256 at b, for each half of it
// ---------------------------------------------------------------------------------------------

inline int nibble_at(const std::uint8_t* packed, int k) {
  return packed[k / 2] >> (k % 2 * 4) & 15;
}
inline void half_nibbles(const std::uint8_t* packed, int sub, float d, Group& g) {
  for (int i = 0; i < 2; ++i)
    g.scale[i] = d * (0.5f + static_cast<float>(nibble_at(packed, 2 * sub + i))) * 0.25f;
}
inline float iq1_m_d(const std::uint8_t* b) {
  const std::uint64_t words = load64(b + 48);
  return from_f16(static_cast<std::uint16_t>((words >> 12 & 0xf) | (words >> 24 & 0xf0) |
                                             (words >> 36 & 0xf00) | (words >> 48 & 0xf000)));
}

// ---- codes
// ---------------------------------------------------------------------------------------------

inline void unpack_iq1(Codec codec, const std::uint8_t* b, int sub, Group& g) {
  const bool medium = codec == Codec::iq1_m;
  const std::uint32_t high = medium ? load16(b + 32 + 2 * sub) : load16(b + 34 + 2 * sub);
  if (medium) {
    const float d = iq1_m_d(b);
    for (int i = 0; i < 2; ++i) {
      const int k = 2 * sub + i, s = load16(b + 48 + k / 4 * 2) >> (k % 4 * 3) & 7;
      g.scale[i] = d * static_cast<float>(2 * s + 1) * 0.125f;
    }
  } else {
    both(g.scale, from_f16(load16(b)) * static_cast<float>(2 * (high >> 12 & 7) + 1) * 0.125f);
  }
  const std::uint8_t* low = b + (medium ? 0 : 2) + 4 * sub;
  for (int p = 0; p < 4; ++p) {
    const std::uint32_t bits = medium ? high >> (4 * p) : high >> (3 * p);
    const bool down = (medium ? bits >> 3 & 1 : high >> 15) != 0;
    constexpr std::uint64_t kOnes = 0x0101010101010101;
    const std::uint64_t point = lattices::kIq1.words[low[p] | (bits & 7) << 8];
    const std::uint64_t moved = down ? point - kOnes : point + kOnes;
    __builtin_memcpy(g.codes + 8 * p, &moved, 8);
  }
}

inline void unpack_iq2(Codec codec, const std::uint8_t* b, int sub, Group& g) {
  const float d = from_f16(load16(b));
  if (codec == Codec::iq2_xxs) {
    const std::uint8_t* low = b + 2 + 8 * sub;
    const std::uint32_t rest = load32(low + 4), signs = signs_of_four(rest);
    both(g.scale, d * (0.5f + static_cast<float>(rest >> 28)) * 0.25f);
    for (int p = 0; p < 4; ++p)
      put_point(lattices::kIq2Xxs.words[low[p]], signs >> (8 * p), g.codes + 8 * p);
  } else if (codec == Codec::iq2_xs) {
    half_nibbles(b + 66, sub, d, g);
    for (int p = 0; p < 4; ++p) {
      const std::uint32_t word = load16(b + 2 + 8 * sub + 2 * p);
      put_point(lattices::kIq2Xs.words[word & 511], with_eighth(word >> 9), g.codes + 8 * p);
    }
  } else {
    half_nibbles(b + 74, sub, d, g);
    for (int p = 0; p < 4; ++p) {
      const int index = b[2 + 4 * sub + p] | (b[66 + sub] >> (2 * p) & 3) << 8;
      put_point(lattices::kIq2S.words[index], b[34 + 4 * sub + p], g.codes + 8 * p);
    }
  }
}

inline void unpack_iq3(Codec codec, const std::uint8_t* b, int sub, Group& g) {
  const float d = from_f16(load16(b));
  const bool small = codec == Codec::iq3_xxs;
  const std::uint32_t rest = small ? load32(b + 66 + 4 * sub) : load32(b + 74 + 4 * sub);
  const std::uint32_t signs = small ? signs_of_four(rest) : rest;
  const std::uint8_t* low = b + 2 + 8 * sub;
  both(g.scale, small ? d * (0.5f + static_cast<float>(rest >> 28)) * 0.5f
                      : d * static_cast<float>(2 * nibble_at(b + 106, sub) + 1));
  for (int p = 0; p < 4; ++p) {
    std::uint64_t halves[2];
    for (int i = 0; i < 2; ++i) {
      const int k = 2 * p + i;
      halves[i] = small ? lattices::kIq3Xxs.words[low[k]]
                        : lattices::kIq3S.words[low[k] | (b[66 + sub] >> k & 1) << 8];
    }
    put_point(halves[0] | halves[1] << 32, signs >> (8 * p), g.codes + 8 * p);
  }
}

// Digit n, base 3, of the fraction `byte` / 256.
inline std::uint8_t digit3(std::uint8_t byte, int n) {
  constexpr std::uint8_t kPowers[] = {1, 3, 9, 27, 81};
  return static_cast<std::uint8_t>(static_cast<std::uint8_t>(byte * kPowers[n]) * 3 >> 8);
}
inline void unpack_tq1(const std::uint8_t* b, int sub, std::uint8_t* codes) {
  for (int i = 0; i < 32; ++i) {
    if (sub < 5)
      codes[i] = digit3(b[i], sub);
    else if (sub < 7 || i < 16)
      codes[i] = digit3(b[32 + i % 16], 2 * (sub - 5) + i / 16);
    else
      codes[i] = digit3(b[48 + i % 4], (i - 16) / 4);
  }
}

inline void unpack_nvfp4(const std::uint8_t* b, int sub, Group& g) {
  const std::uint8_t* q = b + 4 + 16 * sub;
  for (int i = 0; i < 2; ++i) {
    g.scale[i] = e4m3_half(b[2 * sub + i]);
    for (int j = 0; j < 8; ++j) {
      g.codes[16 * i + j] = q[8 * i + j] & 15;
      g.codes[16 * i + j + 8] = q[8 * i + j] >> 4;
    }
  }
  look_up(kE2m1Codes, g.codes);
}

// Group `index` of a matrix in one of these formats; g.min is zero.
inline void unpack_few_bits(Codec codec, const std::uint8_t* data, std::int64_t index, Group& g) {
  const std::int64_t super = index / 8;
  const int sub = static_cast<int>(index % 8);
  const auto pairs = [&](const std::uint8_t* q) {
    for (int j = 0; j < 32; ++j)
      g.codes[j] = static_cast<std::uint8_t>(q[sub / 4 * 32 + j] >> (sub % 4 * 2) & 3);
  };
  switch (codec) {
    case Codec::q2_k: {
      const std::uint8_t* b = data + super * 84;
      const float d = from_f16(load16(b + 80)), dmin = from_f16(load16(b + 82));
      for (int i = 0; i < 2; ++i) {
        g.scale[i] = d * static_cast<float>(b[2 * sub + i] & 15);
        g.min[i] = -(dmin * static_cast<float>(b[2 * sub + i] >> 4));
      }
      return pairs(b + 16);
    }
    case Codec::tq2_0:
      both(g.scale, from_f16(load16(data + super * 66 + 64)));
      return pairs(data + super * 66);
    case Codec::tq1_0:
      both(g.scale, from_f16(load16(data + super * 54 + 52)));
      return unpack_tq1(data + super * 54, sub, g.codes);
    case Codec::q1_0: {
      const std::uint8_t* b = data + index / 4 * 18;
      both(g.scale, from_f16(load16(b)));
      for (int j = 0; j < 32; ++j)
        g.codes[j] = static_cast<std::uint8_t>((b[2 + index % 4 * 4 + j / 8] >> (j % 8) & 1) * 2);
      return;
    }
    case Codec::q2_0: {
      const std::uint8_t* b = data + index / 2 * 18;
      both(g.scale, from_f16(load16(b)));
      for (int j = 0; j < 32; ++j)
        g.codes[j] = static_cast<std::uint8_t>(b[2 + index % 2 * 8 + j / 4] >> (j % 4 * 2) & 3);
      return;
    }
    case Codec::nvfp4:
      return unpack_nvfp4(data + index / 2 * 36, static_cast<int>(index % 2), g);
    case Codec::iq1_s:
      return unpack_iq1(codec, data + super * 50, sub, g);
    case Codec::iq1_m:
      return unpack_iq1(codec, data + super * 56, sub, g);
    case Codec::iq2_xxs:
      return unpack_iq2(codec, data + super * 66, sub, g);
    case Codec::iq2_xs:
      return unpack_iq2(codec, data + super * 74, sub, g);
    case Codec::iq2_s:
      return unpack_iq2(codec, data + super * 82, sub, g);
    case Codec::iq3_xxs:
      return unpack_iq3(codec, data + super * 98, sub, g);
    case Codec::iq3_s:
      return unpack_iq3(codec, data + super * 110, sub, g);
    default:
      __builtin_unreachable();
  }
}

}  // namespace
}  // namespace supersonic::cpu
