// Y (R, C) or (C, R) = T^T * Z, T (K, R) and Z (K, C) with R at most 64, such as the gradients of a
// LoRA adapter's matrices over K tokens. A block takes 64 columns of Z, its warps every eighth step
// of 16 rows. Z goes from memory into registers, eight columns of a row to a lane, 128 bytes of
// four rows to a load; pairs of rows are joined into mma.sync's right operand in place, whose
// column n of product j is column 8 n + j of Z. T comes through shared memory, kTokens rows ahead.
// Bytes moved: Z once, T once for each 64 columns from the L2 cache. Limit: the memory's rate.
#include "backend/cuda/kernels/thin.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kColumns = 64;
constexpr int kTokens = 512;             // rows of T that are in shared memory at once
constexpr int kRowsPart = 16 * kWarps;   // rows that the warps take in one round
constexpr int kSumPitch = kColumns + 4;  // floats from rank to rank of a warp's sums

// tiles: of sixteen ranks.
template <int tiles>
struct Sizes {
  static constexpr int ranks = 16 * tiles, blocks = tiles == 1 ? 2 : 1;
  static constexpr int depth = 4 / blocks;
  static_assert(kTokens / kRowsPart % depth == 0);
  static constexpr int pitch = ranks * 2 + 16;  // bytes from row to row of T: no bank conflicts
  static constexpr int buffer_bytes = kTokens * pitch, sum_bytes = ranks * kSumPitch * 4;
  static constexpr int shared_bytes = 2 * buffer_bytes > (kWarps + 1) * sum_bytes
                                          ? 2 * buffer_bytes
                                          : (kWarps + 1) * sum_bytes;
};

#if __CUDA_ARCH__ >= 900
// Rows k0 .. k0 + kTokens of T, asynchronously where they are aligned; zeros from row `end` on.
template <int tiles>
__device__ void fetch_ranks(const ThinSums& p, bool vectors, char* generic, int k0, int end) {
  using S = Sizes<tiles>;
  const auto* t = static_cast<const __nv_bfloat16*>(p.t);
  const std::uint32_t to = shared_address(generic);
  constexpr int octets = S::ranks / 8;
  const int rows = min(kTokens, (end - k0 + kRowsPart - 1) / kRowsPart * kRowsPart);
  for (int i = threadIdx.x; i < rows * octets; i += kThreads) {
    const int row = i / octets, rank = i % octets * 8, k = k0 + row;
    const int count = k < end ? max(0, min(8, p.r - rank)) : 0;
    const auto* from = count > 0 ? t + k * p.ldt + rank : t;
    if (vectors) {
      copy_async(to + row * S::pitch + rank * 2, from, count * 2);
    } else {
      *reinterpret_cast<uint4*>(generic + row * S::pitch + rank * 2) = load_pieces(from, count);
    }
  }
  commit_copies();
}

// The lane's rows 2 q, 2 q + 1, 2 q + 8, 2 q + 9 of a step of 16, eight columns of each.
template <bool fast>
struct Lines {
  const __nv_bfloat16* z;  // the first of them
  std::int64_t ld;
  int columns;  // of the eight, inside Z
  int left;     // rows from the first until the block's part of K ends

  __device__ void load(uint4 (&to)[4]) {
    asm volatile("" : "+l"(ld));  // its multiples are not worth registers in the loop
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i % 2 + i / 2 * 8;
      const auto* from = z + (i % 2 ? ld : 0) + (i / 2 ? 8 * ld : 0);
      if constexpr (fast) {
        to[i] = load_once(from, left > row);
      } else {
        to[i] = load_pieces(from, left > row ? columns : 0);
      }
    }
    z += kRowsPart * ld;
    left -= kRowsPart;
  }
};

template <int tiles>
__device__ void multiply(float (&sums)[tiles][8][4], const uint4 (&z)[4], std::uint32_t ranks) {
  using S = Sizes<tiles>;
  const int lane = threadIdx.x % 32;
  std::uint32_t t[tiles][4];
#pragma unroll
  for (int i = 0; i < tiles; ++i)
    load_matrices_transposed(
        t[i], ranks + (lane % 8 + lane / 16 * 8) * S::pitch + (i * 2 + lane / 8 % 2) * 16);
  const std::uint32_t words[4][4] = {{z[0].x, z[0].y, z[0].z, z[0].w},
                                     {z[1].x, z[1].y, z[1].z, z[1].w},
                                     {z[2].x, z[2].y, z[2].z, z[2].w},
                                     {z[3].x, z[3].y, z[3].z, z[3].w}};
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int halves = j % 2 ? 0x7632 : 0x5410;
    const std::uint32_t b0 = __byte_perm(words[0][j / 2], words[1][j / 2], halves),
                        b1 = __byte_perm(words[2][j / 2], words[3][j / 2], halves);
#pragma unroll
    for (int i = 0; i < tiles; ++i) multiply_add(sums[i][j], t[i], b0, b1);
  }
}

// The warps' sums, added in order: (ranks, kColumns) behind them.
template <int tiles>
__device__ float* join_warps(const float (&sums)[tiles][8][4], float* shared) {
  using S = Sizes<tiles>;
  constexpr int floats = S::sum_bytes / 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int h = 0; h < 4; ++h) {  // rank g or g + 8, the lane's first or second eight columns
      float* to = shared + warp * floats + (i * 16 + lane / 4 + h / 2 * 8) * kSumPitch +
                  (lane % 4 * 2 + h % 2) * 8;
#pragma unroll
      for (int j = 0; j < 8; j += 4)
        *reinterpret_cast<float4*>(to + j) =
            make_float4(sums[i][j][h], sums[i][j + 1][h], sums[i][j + 2][h], sums[i][j + 3][h]);
    }
  __syncthreads();
  float* total = shared + kWarps * floats;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < floats; i += kThreads * 4) {
    float4 sum = *reinterpret_cast<const float4*>(shared + i);
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const float4 v = *reinterpret_cast<const float4*>(shared + w * floats + i);
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    *reinterpret_cast<float4*>(total + i) = sum;
  }
  return total;
}

// The block's share of the columns of the cluster: its own sums and those of the others, in order.
__device__ inline void leave(const ThinSums& p, std::uint32_t sums, int first_column, int rank) {
  const int columns = kColumns / p.splits, pairs = (p.r + 1) / 2;
  for (int i = threadIdx.x; i < (p.tall_y ? columns * pairs : p.r * columns / 2); i += kThreads) {
    // Neighbours in memory to neighbouring threads: ranks of a column, or columns of a rank.
    const int col = rank * columns + (p.tall_y ? i / pairs : i % (columns / 2) * 2),
              r = p.tall_y ? i % pairs * 2 : i / (columns / 2), c = first_column + col;
    if (c >= p.c) continue;
    float a = 0, b = 0;
    const std::uint32_t at = sums + (r * kSumPitch + (col & ~1)) * 4;
    for (int z = 0; z < p.splits; ++z) {
      const float2 here = load_pair_of(z, at);
      if (p.tall_y) {
        const float2 below = load_pair_of(z, at + kSumPitch * 4);  // of rank r + 1, if only padding
        a += col & 1 ? here.y : here.x, b += col & 1 ? below.y : below.x;
      } else {
        a += here.x, b += here.y;
      }
    }
    if (p.tall_y)
      store_thin(p.result, c * p.result.ldy + r, a, b, r + 1 < p.r);
    else
      store_thin(p.result, r * p.result.ldy + c, a, b, c + 1 < p.c);
  }
}
#endif

template <int tiles, bool fast>
__global__ void __launch_bounds__(kThreads, Sizes<tiles>::blocks)
    thin_sums_kernel(const __grid_constant__ ThinSums p) {
#if __CUDA_ARCH__ >= 900
  using S = Sizes<tiles>;
  extern __shared__ __align__(16) char shared[];
  const int rank = static_cast<int>(blockIdx.x) % p.splits,
            first_column = static_cast<int>(blockIdx.x) / p.splits * kColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int parts = (p.k + kRowsPart - 1) / kRowsPart;
  const int begin =
      static_cast<int>(static_cast<std::int64_t>(parts) * rank / p.splits) * kRowsPart;
  const int end = min(
      p.k, static_cast<int>(static_cast<std::int64_t>(parts) * (rank + 1) / p.splits) * kRowsPart);
  const bool vectors = reinterpret_cast<std::uintptr_t>(p.t) % 16 == 0 && p.ldt % 8 == 0;
  const int column = first_column + lane / 4 * 8;
  const int first = begin + warp * 16 + lane % 4 * 2;  // the lane's first row
  Lines<fast> lines{static_cast<const __nv_bfloat16*>(p.z) + first * p.ldz + column, p.ldz,
                    min(8, p.c - column), column < p.c ? end - first : 0};
  fetch_ranks<tiles>(p, vectors, shared, begin, end);
  uint4 z[S::depth][4];
#pragma unroll
  for (int i = 0; i < S::depth; ++i) lines.load(z[i]);
  float sums[tiles][8][4] = {};
  for (int k0 = begin, buffer = 0; k0 < end; k0 += kTokens, buffer ^= 1) {
    wait_copies<0>();
    __syncthreads();  // this buffer is full, and the other one has been read
    if (k0 + kTokens < end)
      fetch_ranks<tiles>(p, vectors, shared + (buffer ^ 1) * S::buffer_bytes, k0 + kTokens, end);
    const std::uint32_t ranks =
        shared_address(shared) + buffer * S::buffer_bytes + warp * 16 * S::pitch;
#pragma unroll
    for (int i = 0; i < kTokens / kRowsPart; ++i) {
      if (k0 + i * kRowsPart >= end) break;
      multiply(sums, z[i % S::depth], ranks + i * kRowsPart * S::pitch);
      lines.load(z[i % S::depth]);
    }
  }
  __syncthreads();
  float* total = join_warps(sums, reinterpret_cast<float*>(shared));
  cluster_sync();
  leave(p, shared_address(total), first_column, rank);
  cluster_sync();  // nobody leaves while another may read its sums
#endif
}

template <int tiles>
void launch(ThinSums p, cudaStream_t stream) {
  using S = Sizes<tiles>;
  const std::int64_t blocks = ceil_div(p.c, kColumns);
  p.splits = splits_for(blocks, ceil_div(p.k, kRowsPart), S::blocks);
  const auto kernel = aligned_rows(p.z, p.ldz, p.c) ? thin_sums_kernel<tiles, true>
                                                    : thin_sums_kernel<tiles, false>;
  static const bool allowed = (allow_shared(thin_sums_kernel<tiles, true>, S::shared_bytes),
                               allow_shared(thin_sums_kernel<tiles, false>, S::shared_bytes), true);
  static_cast<void>(allowed);
  const dim3 grid(static_cast<unsigned>(blocks * p.splits));
  launch_clusters(kernel, p, grid, p.splits, kThreads, S::shared_bytes, stream, "thin_sums");
}

}  // namespace

void thin_sums(ThinSums p, cudaStream_t stream) {
  if (p.r <= 16) return launch<1>(p, stream);
  if (p.r <= 32) return launch<2>(p, stream);
  launch<4>(p, stream);
}

}  // namespace supersonic::cuda
