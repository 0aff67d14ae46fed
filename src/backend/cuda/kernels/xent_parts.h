// What the passes over the head share: how many rows and logits there are at once, and how a
// dense part of the workspace enters a product.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/codec.h"
#include "backend/cuda/kernels/gemm.h"

namespace supersonic::cuda {

constexpr std::int64_t kMostRows = 2048;         // of a chunk: each chunk reads the head once
constexpr std::int64_t kLogitBytes = 128 << 20;  // of a chunk and a slice

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

inline MatrixRef dense(const void* data, DType type, std::int64_t rows, std::int64_t cols,
                       std::int64_t ld) {
  MatrixRef m;
  m.codec = codec_of(type, nullptr);
  m.planes.data[0] = data;
  m.rows = rows, m.cols = cols, m.ld = ld;
  return m;
}

}  // namespace supersonic::cuda
