// gpt-oss folders keep all experts' matrices in one tensor, transposed (in, out), and gate and up
// as one whose columns alternate. Here an expert's matrix is (out, in), as everywhere else.
//
// As they are published they are MXFP4 ("quant_method": "mxfp4"). Then NAME_blocks (experts, out,
// in / 32, 16) and NAME_scales (experts, out, in / 32), both u8, stand in place of NAME: rows not
// transposed, those of gate and up alternating. Byte j of such a block has weights 2j (low nibble)
// and 2j + 1; formats/mxfp4.h's has weights j and j + 16. Only nibbles change places.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "formats/mxfp4.h"
#include "io/architecture.h"

namespace supersonic::models {

// Which columns of the stored tensor a matrix has: first, first + step, …
struct FusedColumns {
  std::int64_t first, step;
};
inline FusedColumns fused_columns(io::Role role) {
  if (role == io::Role::expert_gate) return {0, 2};
  if (role == io::Role::expert_up) return {1, 2};
  return {0, 1};
}

// from (experts, in, step * out) -> to (experts, out, in), elements of `bytes` bytes. Biases have
// in = 1.
inline void take_fused(const std::byte* from, std::byte* to, std::size_t bytes,
                       std::int64_t experts, std::int64_t out, std::int64_t in,
                       FusedColumns columns) {
  constexpr std::int64_t kTile =
      32;  // of rows read and written at a time, so that neither side leaves the cache
  const std::int64_t width = columns.step * out;
  for (std::int64_t e = 0; e < experts; ++e)
    for (std::int64_t r0 = 0; r0 < out; r0 += kTile)
      for (std::int64_t i = 0; i < in; ++i)
        for (std::int64_t r = r0; r < out && r < r0 + kTile; ++r)
          std::memcpy(to + static_cast<std::size_t>((e * out + r) * in + i) * bytes,
                      from + static_cast<std::size_t>((e * in + i) * width + columns.first +
                                                      r * columns.step) *
                                 bytes,
                      bytes);
}

constexpr std::int64_t kPackedBytes = formats::MXFP4::weights / 2;  // of a block, without its scale

// One block from a folder's 16 bytes, and back.
inline formats::MXFP4::Block take_packed_block(const std::uint8_t* from, std::uint8_t scale) {
  formats::MXFP4::Block b{.e = scale, .qs = {}};
  for (int k = 0; k < 8; ++k) {
    b.qs[2 * k] = static_cast<std::uint8_t>((from[k] & 15) | (from[k + 8] & 15) << 4);
    b.qs[2 * k + 1] = static_cast<std::uint8_t>(from[k] >> 4 | (from[k + 8] & 0xf0));
  }
  return b;
}
inline void put_packed_block(const formats::MXFP4::Block& b, std::uint8_t* to) {
  for (int k = 0; k < 8; ++k) {
    to[k] = static_cast<std::uint8_t>((b.qs[2 * k] & 15) | (b.qs[2 * k + 1] & 15) << 4);
    to[k + 8] = static_cast<std::uint8_t>(b.qs[2 * k] >> 4 | (b.qs[2 * k + 1] & 0xf0));
  }
}

// blocks (experts, step * out, in / 32, 16), scales (experts, step * out, in / 32) -> to (experts,
// out, in / 32).
inline void take_packed(const std::uint8_t* blocks, const std::uint8_t* scales,
                        formats::MXFP4::Block* to, std::int64_t experts, std::int64_t out,
                        std::int64_t in, FusedColumns columns) {
  const std::int64_t row_blocks = in / formats::MXFP4::weights;
  for (std::int64_t e = 0; e < experts; ++e)
    for (std::int64_t r = 0; r < out; ++r) {
      const std::int64_t row = (e * out + r) * columns.step + columns.first;
      for (std::int64_t k = 0; k < row_blocks; ++k) {
        const std::int64_t from = row * row_blocks + k;
        *to++ = take_packed_block(blocks + from * kPackedBytes, scales[from]);
      }
    }
}

}  // namespace supersonic::models
