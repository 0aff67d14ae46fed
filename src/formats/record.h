// Makes the Format record of a GGUF codec from its struct: name, ggml_type, weights, Block, decode
// and, where the format is written, encode. Only registry.cpp needs it.
#pragma once
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "formats/block.h"
#include "formats/format.h"

namespace supersonic::formats {

// rows * cols, both checked: they may come from a file.
inline std::int64_t checked_weights(const Format& format, std::int64_t rows, std::int64_t cols) {
  std::int64_t count = 0;
  CHECK_FILE(rows >= 0 && cols >= 0 && !__builtin_mul_overflow(rows, cols, &count) &&
                 count <= INT64_MAX / 16,
             "{}: a matrix of {} x {} weights is impossible", format.name, rows, cols);
  CHECK_FILE(!format.row_blocks || cols % format.block == 0,
             "{}: rows of {} weights do not divide into blocks of {}; store them as {}",
             format.name, cols, format.block, "f16 or as a format with smaller blocks");
  return count;
}

inline std::size_t block_plane_bytes(const Format& self, int plane, std::int64_t rows,
                                     std::int64_t cols) {
  CHECK(plane >= 0 && plane < self.planes, "{}: there is no plane {}", self.name, plane);
  const std::int64_t count = checked_weights(self, rows, cols);
  return static_cast<std::size_t>(count / self.block) * static_cast<std::size_t>(self.block_bytes);
}

template <class Codec>
void decode_blocks(const Planes& planes, std::int64_t first, std::int64_t count, float* out) {
  const auto* block =
      static_cast<const typename Codec::Block*>(planes.data[0]) + first / Codec::weights;
  for (; count >= Codec::weights; count -= Codec::weights, out += Codec::weights) {
    Codec::decode(*block++, out);
  }
  if (count > 0) {
    float whole[Codec::weights];
    Codec::decode(*block, whole);
    std::copy(whole, whole + count, out);
  }
}

template <class Codec>
void encode_blocks(const float* w, std::int64_t rows, std::int64_t cols, void* const* planes) {
  const std::int64_t blocks = rows * cols / Codec::weights;
  auto* block = static_cast<typename Codec::Block*>(planes[0]);
  for (std::int64_t b = 0; b < blocks; ++b, w += Codec::weights) {
    for (int i = 0; i < Codec::weights; ++i) {
      CHECK(std::fabs(w[i]) <= kLargestWeight,
            "{}: weight {} of row {} is {}; a 16-bit scale holds up to {}", Codec::name,
            (b * Codec::weights + i) % cols, (b * Codec::weights + i) / cols, w[i], kLargestWeight);
    }
    Codec::encode(w, block[b]);
  }
}

template <class Codec>
constexpr Format block_format() {
  Format f;
  f.name = Codec::name;
  f.ggml_type = Codec::ggml_type;
  f.block = Codec::weights;
  f.block_bytes = sizeof(typename Codec::Block);
  f.plane_bytes = block_plane_bytes;
  f.decode = decode_blocks<Codec>;
  if constexpr (requires(const float* w, typename Codec::Block& b) { Codec::encode(w, b); }) {
    f.encode = encode_blocks<Codec>;
  }
  if constexpr (requires { Codec::fallback; }) f.fallback = Codec::fallback;
  return f;
}

}  // namespace supersonic::formats
