// What a panel is decoded from: a matrix of blocks or of NF4, eight consecutive weights at a time.
#pragma once
#include "backend/cuda/kernels/nf4.cuh"
#include "backend/cuda/kernels/pieces.cuh"

namespace supersonic::cuda {

// What a block keeps in shared memory to decode with: nothing, but for NF4.
struct NoTable {};

template <Codec C>
struct BlockSource {
  using Table = NoTable;
  const typename Piece<C>::Block* blocks;
  __device__ void decode8(const NoTable&, std::int64_t at, int, float* out) const {
    constexpr int pieces = Piece<C>::weights / 8;
    const std::int64_t piece = at / 8;
    Piece<C>::decode8(blocks[piece / pieces], static_cast<int>(piece % pieces), out);
  }
};

// The two values of each byte of codes: one load for two weights.
struct Nf4Pairs {
  float2 of[256];
};

template <bool nested>
struct Nf4Source {
  using Table = Nf4Pairs;
  Nf4Planes planes;
  __device__ void decode8(const Nf4Pairs& pairs, std::int64_t at, int count, float* out) const {
    const float scale = nf4_scale<nested>(planes, at / formats::Nf4::weights);
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const float2 pair = i < count ? pairs.of[planes.codes[(at + i) / 2]] : make_float2(0, 0);
      out[i] = pair.x * scale, out[i + 1] = pair.y * scale;
    }
  }
};

// By all threads of a block of at least 256.
__device__ inline void fill(NoTable&) {}
__device__ inline void fill(Nf4Pairs& pairs) {
  if (threadIdx.x < 256)
    pairs.of[threadIdx.x] = make_float2(nf4_value(threadIdx.x >> 4), nf4_value(threadIdx.x & 15));
  __syncthreads();
}

}  // namespace supersonic::cuda
