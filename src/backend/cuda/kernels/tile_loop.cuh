// What the tiled products share: the walk over the steps of all terms, the order of tiles, and how
// sums leave.
#pragma once
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/tiles.h"

namespace supersonic::cuda {

// A position in the list of steps: a term and where in its K.
struct StepCursor {
  int term = 0, k0 = 0;
  __device__ void seek(const TileProblem& p, int step) {
    for (term = 0, k0 = 0; term + 1 < p.count; ++term) {
      const int steps = (p.terms[term].k + kStepK - 1) / kStepK;
      if (step < steps) break;
      step -= steps;
    }
    k0 = step * kStepK;
  }
  __device__ void next(const TileProblem& p) {
    k0 += kStepK;
    if (k0 >= p.terms[term].k && term + 1 < p.count) ++term, k0 = 0;
  }
};

// First and last step (exclusive) of part z of the sum.
struct StepRange {
  int begin, end;
};
__device__ inline StepRange step_range(const TileProblem& p, int z) {
  return {static_cast<int>(static_cast<std::int64_t>(p.steps) * z / p.splits),
          static_cast<int>(static_cast<std::int64_t>(p.steps) * (z + 1) / p.splits)};
}

// Tiles run down in bands of kBand rows of tiles, so that neighbours in time share operands in the
// L2 cache.
struct TileAt {
  int m, n;
};
__device__ inline TileAt tile_at(int index, int tiles_m, int tiles_n) {
  constexpr int kBand = 8;
  const int band = index / (kBand * tiles_n), first = band * kBand;
  const int height = min(kBand, tiles_m - first), in_band = index - band * kBand * tiles_n;
  return {first + in_band % height, in_band / height};
}

// No row of the tile that begins at row m0 matters.
__device__ inline bool dead_rows(const TileProblem& p, int m0) {
  return p.live && m0 >= *p.live - p.live_from;
}

// What a row of Y is multiplied by before a sum is added to it.
__device__ inline float decay_of(const TileProblem& p, std::int64_t row) {
  return p.decay ? p.decay[row] : 1.0f;
}

// One pair of neighbouring columns of Y, or of the partial sums.
__device__ inline void store_pair(const TileProblem& p, int row, int col, float a, float b, int z) {
  if (row >= p.m || col >= p.n) return;
  const bool both = col + 1 < p.n;
  if (p.splits > 1) {
    float* out = p.partial + (static_cast<std::int64_t>(z) * p.m + row) * p.n + col;
    out[0] = a;
    if (both) out[1] = b;
    return;
  }
  const std::int64_t at = row * p.ldy + col;
  if (p.accumulate) {
    const float decay = decay_of(p, row);
    a += decay * load_float(p.y, p.y_type, at);
    if (both) b += decay * load_float(p.y, p.y_type, at + 1);
  }
  const std::uintptr_t address =
      reinterpret_cast<std::uintptr_t>(p.y) + static_cast<std::uintptr_t>(at) * 2;
  if (p.y_type == DType::bf16 && both && address % 4 == 0) {
    *reinterpret_cast<std::uint32_t*>(address) = pack_bf16(a, b);
    return;
  }
  store_float(p.y, p.y_type, at, a);
  if (both) store_float(p.y, p.y_type, at + 1, b);
}

}  // namespace supersonic::cuda
