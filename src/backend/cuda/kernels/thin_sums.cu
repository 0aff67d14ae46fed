// Y (R, C) or (C, R) = T^T * Z, T (K, R) and Z (K, C) with R at most 64, such as the gradients of a
// LoRA adapter's matrices over K tokens. A block takes 64 columns of Z, its warps every eighth step
// of 16 rows. Z goes from memory into registers, eight columns of a row to a lane, 128 bytes of
// four rows to a load; pairs of rows are joined into mma.sync's right operand in place, whose
// column n of product j is column 8 n + j of Z. T goes the same way into the left operand, a lane's
// ranks of a row in one load. No warp waits for another before the sums meet. Bytes moved: Z once,
// T once for each 64 columns from the L2 cache. Limit: the memory's rate.
#include "backend/cuda/kernels/thin.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kStep = 16, kRound = kStep * kThinWarps;  // rows of a warp, of the block

// tiles: of sixteen ranks; blocks: at once on a multiprocessor.
template <int tiles, int blocks, bool fast>
struct Sizes : ThinSizes<tiles> {
  static constexpr int depth = !fast ? 1 : tiles == 4 || blocks == 2 ? 2 : 4;  // steps on their way
};

#if __CUDA_ARCH__ >= 900
// The lane's ranks of a row of T, or zeros.
template <int tiles>
__device__ void load_ranks(std::uint32_t (&to)[tiles], const __nv_bfloat16* from, bool valid) {
#pragma unroll
  for (int i = 0; i < tiles; ++i) to[i] = 0;
  if (!valid) return;
  const auto words = *reinterpret_cast<const Pack<std::uint32_t, tiles>*>(from);
#pragma unroll
  for (int i = 0; i < tiles; ++i) to[i] = words.v[i];
}
template <int tiles>
__device__ void load_some_ranks(std::uint32_t (&to)[tiles], const __nv_bfloat16* from, int count) {
#pragma unroll
  for (int i = 0; i < tiles; ++i) {
    const std::uint32_t low = 2 * i < count ? __bfloat16_as_ushort(from[2 * i]) : 0,
                        high = 2 * i + 1 < count ? __bfloat16_as_ushort(from[2 * i + 1]) : 0;
    to[i] = low | high << 16;
  }
}

// The lane's rows 2 q, 2 q + 1, 2 q + 8, 2 q + 9 of a step: eight columns of Z, 2 `tiles` ranks.
template <int tiles, bool fast>
struct Lines {
  const __nv_bfloat16 *z, *t;  // of the first of them
  std::int64_t ldz, ldt;
  int columns, ranks;  // inside of Z and T, at most the lane's
  int left;            // rows from the first until the block's part of K ends

  __device__ void load(uint4 (&to_z)[4], std::uint32_t (&to_t)[4][tiles]) {
    asm volatile("" : "+l"(ldz), "+l"(ldt));  // their multiples are not worth registers in the loop
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i % 2 + i / 2 * 8;
      const auto *from_z = z + row * ldz, *from_t = t + row * ldt;
      if constexpr (fast) {
        to_z[i] = load_once(from_z, left > row && columns > 0);
        load_ranks(to_t[i], from_t, left > row && ranks > 0);
      } else {
        to_z[i] = load_pieces(from_z, left > row ? columns : 0);
        load_some_ranks(to_t[i], from_t, left > row ? ranks : 0);
      }
    }
    z += kRound * ldz, t += kRound * ldt;
    left -= kRound;
  }
};

template <int tiles>
__device__ void multiply(float (&sums)[tiles][8][4], const uint4 (&z)[4],
                         const std::uint32_t (&ranks)[4][tiles]) {
  constexpr int low = 0x5410, high = 0x7632;  // halves of two words
  std::uint32_t t[tiles][4];
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int r = 0; r < 4; ++r)
      t[i][r] = __byte_perm(ranks[r / 2 * 2][i], ranks[r / 2 * 2 + 1][i], r % 2 ? high : low);
  const std::uint32_t words[4][4] = {{z[0].x, z[0].y, z[0].z, z[0].w},
                                     {z[1].x, z[1].y, z[1].z, z[1].w},
                                     {z[2].x, z[2].y, z[2].z, z[2].w},
                                     {z[3].x, z[3].y, z[3].z, z[3].w}};
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int halves = j % 2 ? high : low;
    const std::uint32_t b0 = __byte_perm(words[0][j / 2], words[1][j / 2], halves),
                        b1 = __byte_perm(words[2][j / 2], words[3][j / 2], halves);
#pragma unroll
    for (int i = 0; i < tiles; ++i) multiply_add(sums[i][j], t[i], b0, b1);
  }
}
#endif

template <int tiles, int blocks, bool fast>
__global__ void __launch_bounds__(kThinThreads, blocks)
    thin_sums_kernel(const __grid_constant__ ThinSums p) {
#if __CUDA_ARCH__ >= 900
  using S = Sizes<tiles, blocks, fast>;
  extern __shared__ __align__(16) char shared[];
  const int rank = static_cast<int>(blockIdx.x) & ((1 << p.shift) - 1),
            first_column = (static_cast<int>(blockIdx.x) >> p.shift) * kLong;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned rounds = (p.k + kRound - 1) / kRound;
  const int begin = static_cast<int>(rounds * rank >> p.shift),
            end = static_cast<int>(rounds * (rank + 1) >> p.shift);
  const int column = first_column + lane / 4 * 8, first_rank = lane / 4 * S::lane,
            first = begin * kRound + warp * kStep + lane % 4 * 2;  // the lane's first row
  prepare_to_meet<tiles>(shared);
  Lines<tiles, fast> lines{static_cast<const __nv_bfloat16*>(p.z) + first * p.ldz + column,
                           static_cast<const __nv_bfloat16*>(p.t) + first * p.ldt + first_rank,
                           p.ldz,
                           p.ldt,
                           min(8, p.c - column),
                           min(S::lane, p.r - first_rank),
                           min(p.k, end * kRound) - first};
  uint4 z[S::depth][4];
  std::uint32_t t[S::depth][4][tiles];
#pragma unroll
  for (int d = 0; d < S::depth; ++d) lines.load(z[d], t[d]);
  const ThinBlock block{p.result, first_column, p.c, p.r, !p.tall_y, p.shift, rank};
  block.prefetch<tiles>();
  float sums[tiles][8][4] = {};
  for (int round = begin; round < end; round += S::depth) {
#pragma unroll
    for (int d = 0; d < S::depth; ++d) {
      multiply(sums, z[d], t[d]);
      lines.load(z[d], t[d]);
    }
  }
  meet<tiles>(sums, shared, block, [](int column) { return column % 8 * 8 + column / 8; });
#endif
}

template <int tiles, int at_once, bool fast>
void launch(ThinSums p, cudaStream_t stream) {
  using S = Sizes<tiles, at_once, fast>;
  constexpr auto kernel = thin_sums_kernel<tiles, at_once, fast>;
  static const bool allowed = (allow_shared(kernel, S::shared_bytes), true);
  static_cast<void>(allowed);
  const ThinShares shares = shares_for(ceil_div(p.c, kLong), ceil_div(p.k, kRound), at_once);
  p.shift = shares.shift;
  launch_clusters(kernel, p, dim3(static_cast<unsigned>(shares.blocks)), 1 << p.shift, kThinThreads,
                  S::shared_bytes, stream, "thin_sums");
}

template <int tiles>
void launch_aligned(const ThinSums& p, cudaStream_t stream) {
  constexpr int ranks = ThinSizes<tiles>::lane;  // of a lane, in one load
  const bool fast = aligned_rows(p.z, p.ldz, p.c) &&
                    reinterpret_cast<std::uintptr_t>(p.t) % (ranks * 2) == 0 &&
                    p.ldt % ranks == 0 && p.r % ranks == 0;
  if (!fast) return launch<tiles, 1, false>(p, stream);
  if (tiles > 1 || fills_alone(ceil_div(p.c, kLong), ceil_div(p.k, kRound)))
    return launch<tiles, 1, true>(p, stream);
  if constexpr (tiles == 1) launch<1, 2, true>(p, stream);
}

}  // namespace

void thin_sums(ThinSums p, cudaStream_t stream) {
  if (p.r <= 16) return launch_aligned<1>(p, stream);
  if (p.r <= 32) return launch_aligned<2>(p, stream);
  launch_aligned<4>(p, stream);
}

}  // namespace supersonic::cuda
