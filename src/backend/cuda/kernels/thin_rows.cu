// Y (M, N) = X (M, K) * W^T with N at most 32, such as a token's way into a LoRA adapter and back.
// A block takes 64 rows of X and all columns of Y, a warp every eighth piece of 32 of K, for which
// it holds W in registers. X goes from memory into registers that are mma.sync's right operand as
// they are: since the order of K does not matter as long as both operands agree on it, a lane's
// eight neighbours of K stand for the eight places of K that it holds in two products. W, the left
// operand, is read a piece ahead and rounded to bf16. No warp waits for another before the sums
// meet. Bytes moved: X once, W once for each 64 rows from the L2 cache. Limit: the memory's rate.
#include "backend/cuda/kernels/thin.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kPiece = 32, kRound = kPiece * kThinWarps;  // of K: a warp's, the block's

// tiles: of sixteen columns; blocks: at once on a multiprocessor.
template <int tiles, int blocks, bool fast>
struct Sizes : ThinSizes<tiles> {
  static constexpr int depth = !fast || blocks == 2 ? 1
                               : tiles == 1         ? 3
                                                    : 2;  // pieces on their way
};

#if __CUDA_ARCH__ >= 900
// The lane's weights of a piece: eight of K for each of its columns of Y.
template <int tiles, class W, bool tall>
struct Weights {
  static constexpr int columns = ThinSizes<tiles>::lane;
  float v[columns][8];

  __device__ void fetch(const ThinRows& p, int k, int left) {
    const int n = static_cast<int>(threadIdx.x) % 32 / 4 * columns;
    const auto* w = static_cast<const W*>(p.w);
    if constexpr (tall) {
      using Line = Pack<W, columns>;
      const bool whole = p.fast_w && n + columns <= p.n;
      const W* from = w + k * p.ldw + n;
#pragma unroll
      for (int e = 0; e < 8; ++e, from += p.ldw) {
        Line line{};
        if (e < left && whole) line = *reinterpret_cast<const Line*>(from);
        if (e < left && !whole) {
#pragma unroll
          for (int c = 0; c < columns; ++c)
            if (n + c < p.n) line.v[c] = from[c];
        }
#pragma unroll
        for (int c = 0; c < columns; ++c) v[c][e] = to_float(line.v[c]);
      }
    } else {
      constexpr DType type = sizeof(W) == 4 ? DType::f32 : DType::bf16;
#pragma unroll
      for (int c = 0; c < columns; ++c)
        dense8(w, type, p.fast_w, (n + c) * p.ldw + k, n + c < p.n ? max(0, min(8, left)) : 0,
               v[c]);
    }
  }

  // The left operands of a piece's two products.
  __device__ void round(std::uint32_t (&to)[tiles][2][4]) const {
#pragma unroll
    for (int i = 0; i < tiles; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float* from = v[2 * i + r % 2] + 4 * h + r / 2 * 2;
          to[i][h][r] = pack_bf16(from[0], from[1]);
        }
  }
};

// The lane's eight of K, in row g of each eight of the block's rows.
template <bool fast>
struct Lines {
  const __nv_bfloat16* x;
  std::int64_t ld;
  int rows, left;  // from the lane's place on, until X and the block's part of K end

  __device__ uint4 load(int octet, int k) const {
    const auto* from = x + octet * 8 * ld + k;
    if constexpr (fast) {
      return load_once(from, left > k && rows > octet * 8);
    } else {
      return load_pieces(from, rows > octet * 8 ? left - k : 0);
    }
  }
};
#endif

template <int tiles, int blocks, class W, bool tall, bool fast>
__global__ void __launch_bounds__(kThinThreads, blocks)
    thin_rows_kernel(const __grid_constant__ ThinRows p) {
#if __CUDA_ARCH__ >= 900
  using S = Sizes<tiles, blocks, fast>;
  extern __shared__ __align__(16) char shared[];
  const int rank = static_cast<int>(blockIdx.x) & ((1 << p.shift) - 1),
            first_row = (static_cast<int>(blockIdx.x) >> p.shift) * kLong;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned pieces = (p.k + kPiece - 1) / kPiece;
  const int begin = static_cast<int>(pieces * rank >> p.shift) * kPiece,
            end = min(p.k, static_cast<int>(pieces * (rank + 1) >> p.shift) * kPiece);
  int k = begin + warp * kPiece + lane % 4 * 8;  // the lane's place
  prepare_to_meet<tiles>(shared);
  Weights<tiles, W, tall> ahead;
  ahead.fetch(p, k, end - k);
  Lines<fast> lines{static_cast<const __nv_bfloat16*>(p.x) + (first_row + lane / 4) * p.ldx + k,
                    p.ldx, p.m - first_row - lane / 4, end - k};
  uint4 x[S::depth][8];
#pragma unroll
  for (int d = 0; d < S::depth; ++d)
#pragma unroll
    for (int o = 0; o < 8; ++o) x[d][o] = lines.load(o, d * kRound);
  const ThinBlock block{p.result, first_row, p.m, p.n, false, p.shift, rank};
  block.prefetch<tiles>();
  float sums[tiles][8][4] = {};
  for (int at = begin + warp * kPiece; at < end; at += S::depth * kRound) {
#pragma unroll
    for (int d = 0; d < S::depth; ++d) {
      std::uint32_t w[tiles][2][4];
      ahead.round(w);
      k += kRound;
      ahead.fetch(p, k, end - k);
#pragma unroll
      for (int o = 0; o < 8; ++o) {
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
          multiply_add(sums[i][o], w[i][0], x[d][o].x, x[d][o].y);
          multiply_add(sums[i][o], w[i][1], x[d][o].z, x[d][o].w);
        }
        if (S::depth == 1) x[d][o] = lines.load(o, kRound);
      }
      if (S::depth > 1) {  // together, so that they share a scoreboard, of which there are six
#pragma unroll
        for (int o = 0; o < 8; ++o) x[d][o] = lines.load(o, (S::depth + d) * kRound);
      }
    }
    lines.x += S::depth * kRound, lines.left -= S::depth * kRound;
  }
  meet<tiles>(sums, shared, block, [](int column) { return column; });
#endif
}

template <int tiles, int at_once, class W, bool tall, bool fast = true>
void launch(ThinRows p, cudaStream_t stream) {
  using S = Sizes<tiles, at_once, fast>;
  constexpr auto kernel = thin_rows_kernel<tiles, at_once, W, tall, fast>;
  static const bool allowed = (allow_shared(kernel, S::shared_bytes), true);
  static_cast<void>(allowed);
  const std::int64_t vector = tall ? S::lane : 8;
  p.fast_w =
      reinterpret_cast<std::uintptr_t>(p.w) % (vector * sizeof(W)) == 0 && p.ldw % vector == 0;
  const ThinShares shares = shares_for(ceil_div(p.m, kLong), ceil_div(p.k, kRound), at_once);
  p.shift = shares.shift;
  launch_clusters(kernel, p, dim3(static_cast<unsigned>(shares.blocks)), 1 << p.shift, kThinThreads,
                  S::shared_bytes, stream, "thin_rows");
}

template <class W, bool tall>
void launch_width(const ThinRows& p, cudaStream_t stream) {
  if (!aligned_rows(p.x, p.ldx, p.k)) return launch<2, 1, W, tall, false>(p, stream);
  if (p.n > 16) return launch<2, 1, W, tall>(p, stream);
  if (fills_alone(ceil_div(p.m, kLong), ceil_div(p.k, kRound)))
    return launch<1, 1, W, tall>(p, stream);
  launch<1, 2, W, tall>(p, stream);
}

template <class W>
void launch_type(const ThinRows& p, cudaStream_t stream) {
  p.tall_w ? launch_width<W, true>(p, stream) : launch_width<W, false>(p, stream);
}

}  // namespace

void thin_rows(ThinRows p, cudaStream_t stream) {
  p.w_type == DType::f32 ? launch_type<float>(p, stream) : launch_type<__nv_bfloat16>(p, stream);
}

}  // namespace supersonic::cuda
