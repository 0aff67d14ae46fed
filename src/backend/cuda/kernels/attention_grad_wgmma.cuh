// What the two passes of attention's backward on Hopper share (attention_grad_wgmma.cu brings dq,
// attention_grad_keys.cu dk and dv): the call, tiles of one head by the copy engine, products of a
// warpgroup's 64 rows, and which keys each 64 queries see.
#pragma once
#include "backend/cuda/kernels/attention_blocks.cuh"
#include "backend/cuda/kernels/attention_tiles.cuh"
#include "backend/cuda/kernels/wgmma_products.cuh"

namespace supersonic::cuda {

constexpr int kRows = kBlockQueries, kThreads = 384;  // of a block: rows that stand still, threads
constexpr int kRangeQueries = 64;

// Keys of kRangeQueries queries: all that any of them sees, and those that every one sees.
struct __align__(16) TileRange {
  int lo, hi, inner_lo, inner_hi;
};

struct BackwardCall {
  AttentionBackward a;
  float* delta;             // (T, heads)
  const TileRange* ranges;  // one for each kRangeQueries queries
  float* parts;  // dk and dv of each part of the heads: (parts, 2, S, kv_heads, D); null: one part,
                 // straight to its place
  RowBlocks blocks;  // of dq
  CUtensorMap q, k, v, d_o;
};

void attention_keys_wgmma(BackwardCall& c, cudaStream_t stream);  // dk, dv
int attention_key_parts(const AttentionShape& s);

// A tile of `rows` rows of one head: D / 64 boxes.
template <int D>
__device__ void copy_tile(std::uint32_t to, const CUtensorMap* map, int head, int first, int rows,
                          std::uint32_t barrier) {
  for (int i = 0; i < D / 64; ++i)
    copy_box(to + i * rows * 128, map, head * D + i * 64, first, barrier);
}

// out (64, columns) = rows of A * rows of B^T over D. a: the warpgroup's first row in its tile of
// `a_rows`.
template <int D, int columns>
__device__ void multiply_rows(float (&out)[columns / 8][4], std::uint32_t a, int a_rows,
                              std::uint32_t b) {
  warpgroup_begin();
#pragma unroll
  for (int k = 0; k < D / 16; ++k)
    warpgroup_multiply_add<false, false>(
        out, tile_descriptor<false>(a + k / 4 * a_rows * 128 + k % 4 * 32, 0),
        tile_descriptor<false>(b + k / 4 * columns * 128 + k % 4 * 32, 0), k > 0);
  warpgroup_commit();
}

// sum (64, D) += p (64, depth) * B (depth, D)
template <int D, int depth>
__device__ void add_rows(float (&sum)[D / 8][4], const std::uint32_t (&p)[depth / 16][4],
                         std::uint32_t b) {
  warpgroup_begin();
#pragma unroll
  for (int k = 0; k < depth / 16; ++k)
    warpgroup_multiply_left<true>(sum, p[k], tile_descriptor<true>(b + k * 2048, depth * 128));
  warpgroup_commit();
}

template <int depth>
__device__ void pack_rows(std::uint32_t (&p)[depth / 16][4], const float (&s)[depth / 8][4]) {
#pragma unroll
  for (int k = 0; k < depth / 16; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      p[k][i] = pack_bf16(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
}

}  // namespace supersonic::cuda
