// What the codecs that decode by pieces share. A piece is eight consecutive weights, the unit in
// which the i-quants index their lattices and in which a GPU thread decodes. A codec with a lattice
// names it `Table`: decode() uses the host's copy, device code passes one of its own.
#pragma once
#include "formats/block.h"

namespace supersonic::formats {

// The host's copy of a lattice.
template <class Table>
inline constexpr Table kTable{};

template <class Codec, class... Table>
constexpr void decode_pieces(const typename Codec::Block& b, float* out, const Table&... table) {
  for (int p = 0; p < Codec::weights / 8; ++p) Codec::decode8(b, p, out + 8 * p, table...);
}

// Eight signs in seven bits: the number of negative weights is even, so the eighth follows.
constexpr int signs_of(int seven_bits) {
  int parity = seven_bits ^ seven_bits >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven_bits | (parity & 1) << 7;
}

constexpr float signed_level(int level, int signs, int i) {
  return static_cast<float>(signs >> i & 1 ? -level : level);
}

// The four bits of entry k.
constexpr int nibble(const std::uint8_t* packed, int k) {
  return packed[k / 2] >> (k % 2 * 4) & 15;
}

// Nibbles of 16 weights in 8 bytes: the first 8 weights in the low halves.
constexpr int split_nibble(const std::uint8_t* bytes, int i, bool high) {
  return bytes[i] >> (high ? 4 : 0) & 15;
}

// Magnitudes 8, 25, 43 of the 2-bit i-quants.
constexpr void lattice_2bit(int point, int signs, float scale, float* out) {
  for (int i = 0; i < 8; ++i) {
    const int level = point >> (2 * i) & 3;
    out[i] = scale * signed_level(8 + 17 * level + (level >> 1), signs, i);
  }
}

// Levels -1, 0, 1 of the 1-bit i-quants, all moved by an eighth.
constexpr void lattice_1bit(int point, bool down, float scale, float* out) {
  const float shift = down ? -0.125f : 0.125f;
  for (int i = 0; i < 8; ++i)
    out[i] = scale * (static_cast<float>((point >> (2 * i) & 3) - 1) + shift);
}

// OCP e2m1, doubled: 0 1 2 3 4 6 8 12, bit 3 is the sign.
constexpr int doubled_e2m1(int code) {
  const int m = code & 7, size = m < 2 ? m : (2 | (m & 1)) << (m / 2 - 1);
  return code & 8 ? -size : size;
}

}  // namespace supersonic::formats
