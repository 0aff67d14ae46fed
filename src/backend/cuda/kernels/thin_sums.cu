// Y (R, C) or (C, R) = T^T * Z, T (K, R) and Z (K, C) with R at most 64, such as the gradients of a
// LoRA adapter's matrices over K tokens. A block takes 64 columns of Z, its warps every eighth step
// of 16 rows. Z and T come by asynchronous copies, a step a stage. A lane reads eight columns of
// four rows, and pairs of rows are joined into mma.sync's right operand in place, whose column n of
// product j is column 8 n + j of Z; likewise T into the left operand. Bytes moved: Z once, T once
// for each 64 columns from the L2 cache. Limit: the memory's rate.
#include "backend/cuda/kernels/thin.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kStep = 16, kRound = kStep * kThinWarps;  // rows of a warp, of the block
constexpr int kZBytes = kStep * kLong * 2;              // of a stage

// tiles: of sixteen ranks.
template <int tiles>
using Sizes = ThinSizes<tiles, kZBytes + kStep * 32 * tiles, tiles == 2 ? 4 : 5>;

#if __CUDA_ARCH__ == 900
// What the lane brings of a stage: eight columns of every fourth row of Z, and of T. A row's chunks
// of eight columns are mixed with the row, so that reading them has no bank conflicts.
template <int tiles, bool fast>
struct Source {
  static constexpr int octets = 2 * tiles, rows = 32 / octets;  // of T: in a row, in a load
  const __nv_bfloat16 *z, *t;                                   // the lane's place in the step
  std::int64_t ldz, ldt;
  int columns, ranks;  // from there on
  int z_left, t_left;  // rows from there until the block's part of K ends

  __device__ void bring(char* stage) {
    const int lane = threadIdx.x % 32;
#pragma unroll(fast ? kStep / 4 : 1)
    for (int i = 0; i < kStep / 4; ++i) {
      const int row = i * 4 + lane / 8, count = z_left > i * 4 ? columns : 0;
      bring_eight<fast>(stage + row * 128 + (lane % 8 ^ (row & 6)) * 16,
                        count > 0 ? z + i * 4 * ldz : z, count);
    }
#pragma unroll(fast ? tiles : 1)
    for (int i = 0; i < tiles; ++i) {
      const int count = t_left > i * rows ? ranks : 0;
      bring_eight<fast>(stage + kZBytes + (i * 32 + lane) * 16, count > 0 ? t + i * rows * ldt : t,
                        count);
    }
    commit_copies();
    z += kRound * ldz, t += kRound * ldt;
    z_left -= kRound, t_left -= kRound;
  }
};

template <int tiles>
__device__ void multiply(float (&sums)[tiles][8][4], const char* stage) {
  constexpr int low = 0x5410, high = 0x7632;  // halves of two words
  const int lane = threadIdx.x % 32, first = lane % 4 * 2;
  std::uint32_t z[4][4], ranks[4][tiles], t[tiles][4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {  // rows 2 q, 2 q + 1, 2 q + 8, 2 q + 9
    const int row = first + i % 2 + i / 2 * 8;
    const uint4 v = *reinterpret_cast<const uint4*>(stage + row * 128 + (lane / 4 ^ first) * 16);
    z[i][0] = v.x, z[i][1] = v.y, z[i][2] = v.z, z[i][3] = v.w;
    const auto words = *reinterpret_cast<const Pack<std::uint32_t, tiles>*>(
        stage + kZBytes + row * 32 * tiles + lane / 4 * 4 * tiles);
#pragma unroll
    for (int w = 0; w < tiles; ++w) ranks[i][w] = words.v[w];
  }
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int r = 0; r < 4; ++r)
      t[i][r] = __byte_perm(ranks[r / 2 * 2][i], ranks[r / 2 * 2 + 1][i], r % 2 ? high : low);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int halves = j % 2 ? high : low;
    const std::uint32_t b0 = __byte_perm(z[0][j / 2], z[1][j / 2], halves),
                        b1 = __byte_perm(z[2][j / 2], z[3][j / 2], halves);
#pragma unroll
    for (int i = 0; i < tiles; ++i) multiply_add(sums[i][j], t[i], b0, b1);
  }
}
#endif

template <int tiles, bool fast>
__global__ void __launch_bounds__(kThinThreads, tiles == 4 ? 1 : 2)
    thin_sums_kernel(const __grid_constant__ ThinSums p) {
#if __CUDA_ARCH__ == 900
  using S = Sizes<tiles>;
  using From = Source<tiles, fast>;
  extern __shared__ __align__(128) char shared[];
  prepare_to_meet<S>(shared);
  const int rank = static_cast<int>(blockIdx.x) & ((1 << p.shift) - 1),
            first_column = (static_cast<int>(blockIdx.x) >> p.shift) * kLong;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned rounds = (p.k + kRound - 1) / kRound;
  const int begin = static_cast<int>(rounds * rank >> p.shift),
            end = static_cast<int>(rounds * (rank + 1) >> p.shift);
  const int step = begin * kRound + warp * kStep, end_row = min(p.k, end * kRound);
  const int z_row = step + lane / 8, column = first_column + lane % 8 * 8,
            t_row = step + lane / From::octets, first_rank = lane % From::octets * 8;
  From source{static_cast<const __nv_bfloat16*>(p.z) + z_row * p.ldz + column,
              static_cast<const __nv_bfloat16*>(p.t) + t_row * p.ldt + first_rank,
              p.ldz,
              p.ldt,
              p.c - column,
              p.r - first_rank,
              end_row - z_row,
              end_row - t_row};
  char* const ring = shared + warp * S::warp_bytes;
#pragma unroll 1  // short code is at hand sooner
  for (int d = 0; d < S::depth; ++d) source.bring(ring + d * S::stage_bytes);
  const ThinBlock block{p.result, first_column, p.c, p.r, !p.tall_y, p.shift, rank};
  block.prefetch<tiles>();
  float sums[tiles][8][4] = {};
  int slot = 0;
  for (int round = begin; round < end; ++round) {
    wait_copies<S::depth - 1>();
    __syncwarp();
    multiply(sums, ring + slot);
    __syncwarp();
    source.bring(ring + slot);
    slot = slot == S::ring_bytes - S::stage_bytes ? 0 : slot + S::stage_bytes;
  }
  wait_copies<0>();
  meet<S>(sums, shared, block, [](int column) { return column % 8 * 8 + column / 8; });
#endif
}

template <int tiles, bool fast>
void launch(ThinSums p, cudaStream_t stream) {
  using S = Sizes<tiles>;
  constexpr auto kernel = thin_sums_kernel<tiles, fast>;
  static const bool allowed = (allow_shared(kernel, S::shared_bytes), true);
  static_cast<void>(allowed);
  const std::int64_t blocks = ceil_div(p.c, kLong);
  p.shift = shift_for(blocks, ceil_div(p.k, kRound));
  launch_clusters(kernel, p, dim3(static_cast<unsigned>(blocks << p.shift)), 1 << p.shift,
                  kThinThreads, S::shared_bytes, stream, "thin_sums");
}

template <int tiles>
void launch_aligned(const ThinSums& p, cudaStream_t stream) {
  const bool fast = aligned_rows(p.z, p.ldz, p.c) &&
                    reinterpret_cast<std::uintptr_t>(p.t) % 16 == 0 && p.ldt % 8 == 0;
  fast ? launch<tiles, true>(p, stream) : launch<tiles, false>(p, stream);
}

}  // namespace

void thin_sums(ThinSums p, cudaStream_t stream) {
  if (p.r <= 16) return launch_aligned<1>(p, stream);
  if (p.r <= 32) return launch_aligned<2>(p, stream);
  launch_aligned<4>(p, stream);
}

}  // namespace supersonic::cuda
