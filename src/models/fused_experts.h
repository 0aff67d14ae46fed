// gpt-oss folders keep all experts' matrices in one tensor, transposed (in, out), and gate and up
// as one whose columns alternate. Here an expert's matrix is (out, in), as everywhere else.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

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

}  // namespace supersonic::models
