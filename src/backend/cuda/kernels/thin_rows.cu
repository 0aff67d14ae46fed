// Y (M, N) = X (M, K) * W^T with N at most 32, such as a token's way into a LoRA adapter and back.
// A block takes 64 rows of X, a warp every eighth piece of 64 of K, for which it holds W in
// registers. X comes by asynchronous copies, 32 rows of a piece a stage, and is read as mma.sync's
// right operand as it lies: since the order of K does not matter as long as both operands agree on
// it, a lane's eight neighbours of K stand for the eight places of K that it holds in two products.
// W, the left operand, is read a piece ahead and rounded to bf16. Bytes moved: X once, W once for
// each 64 rows from the L2 cache. Limit: the memory's rate.
#include "backend/cuda/kernels/thin.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kPiece = 64, kRound = kPiece * kThinWarps;  // of K: a warp's, the block's
constexpr int kStageRows = 32;

// tiles: of sixteen columns.
template <int tiles>
using Sizes = ThinSizes<tiles, kStageRows * kPiece * 2, 4>;

#if __CUDA_ARCH__ == 900
// The lane's weights of half a piece: eight of K for each of its columns of Y.
template <int tiles, class W, bool tall>
struct Weights {
  static constexpr int columns = Sizes<tiles>::lane;
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

  // The left operands of its two products.
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

// What the lane brings of a stage: eight of K in every fourth row. Within a row of a stage, chunks
// of eight are swapped by halves in odd rows, so that reading them has no bank conflicts.
template <bool fast>
struct Source {
  const __nv_bfloat16* x;
  std::int64_t ld;
  int rows, left;  // from the lane's place on, until X and the block's part of K end

  __device__ void bring(char* stage, int half) const {
    const int lane = threadIdx.x % 32, row = lane / 8;
    char* to = stage + row * 128 + (lane % 8 ^ row % 2 * 4) * 16;
    const auto* from = x + half * kStageRows * ld;
#pragma unroll(fast ? kStageRows / 4 : 1)
    for (int i = 0; i < kStageRows / 4; ++i, from += 4 * ld) {
      const int count = rows > half * kStageRows + i * 4 ? left : 0;
      bring_eight<fast>(to + i * 512, count > 0 ? from : x, count);
    }
    commit_copies();
  }
  __device__ void advance() { x += kRound, left -= kRound; }
};
#endif

template <int tiles, class W, bool tall, bool fast>
__global__ void __launch_bounds__(kThinThreads)
    thin_rows_kernel(const __grid_constant__ ThinRows p) {
#if __CUDA_ARCH__ == 900
  using S = Sizes<tiles>;
  extern __shared__ __align__(128) char shared[];
  prepare_to_meet<S>(shared);
  const int rank = static_cast<int>(blockIdx.x) & ((1 << p.shift) - 1),
            first_row = (static_cast<int>(blockIdx.x) >> p.shift) * kLong;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned pieces = (p.k + kPiece - 1) / kPiece;
  const int begin = static_cast<int>(pieces * rank >> p.shift) * kPiece + warp * kPiece,
            end = min(p.k, static_cast<int>(pieces * (rank + 1) >> p.shift) * kPiece);
  const int from_row = first_row + lane / 8, from_k = begin + lane % 8 * 8;
  Source<fast> source{static_cast<const __nv_bfloat16*>(p.x) + from_row * p.ldx + from_k, p.ldx,
                      p.m - from_row, end - from_k};
  char* const ring = shared + warp * S::warp_bytes;
  static_assert(S::depth % 2 == 0 && kLong == 2 * kStageRows);
#pragma unroll 1  // short code is at hand sooner
  for (int d = 0; d < S::depth; ++d) {
    source.bring(ring + d * S::stage_bytes, d % 2);
    if (d % 2 == 1) source.advance();
  }
  int k = begin + lane % 4 * 8;  // of which the lane holds the weights
  Weights<tiles, W, tall> ahead[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) ahead[h].fetch(p, k + h * 32, end - k - h * 32);
  const ThinBlock block{p.result, first_row, p.m, p.n, false, p.shift, rank};
  block.prefetch<tiles>();
  // Where the lane's chunk of the first half of a row's K is; the other is 64 bytes from it.
  const int place = lane / 4 * 128 + (lane % 4 ^ lane / 4 % 2 * 4) * 16;
  float sums[tiles][8][4] = {};
  int slot = 0;
  for (int at = begin; at < end; at += kRound) {
    std::uint32_t w[2][tiles][2][4];
    k += kRound;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      ahead[h].round(w[h]);
      ahead[h].fetch(p, k + h * 32, end - k - h * 32);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      wait_copies<S::depth - 1>();
      __syncwarp();
      char* const stage = ring + slot;
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        const uint4 x0 = *reinterpret_cast<const uint4*>(stage + o * 1024 + place),
                    x1 = *reinterpret_cast<const uint4*>(stage + o * 1024 + (place ^ 64));
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
          float(&sum)[4] = sums[i][half * 4 + o];
          multiply_add(sum, w[0][i][0], x0.x, x0.y);
          multiply_add(sum, w[0][i][1], x0.z, x0.w);
          multiply_add(sum, w[1][i][0], x1.x, x1.y);
          multiply_add(sum, w[1][i][1], x1.z, x1.w);
        }
      }
      __syncwarp();
      source.bring(stage, half);  // `depth` stages ahead
      slot = slot == S::ring_bytes - S::stage_bytes ? 0 : slot + S::stage_bytes;
    }
    source.advance();
  }
  wait_copies<0>();
  meet<S>(sums, shared, block, [](int column) { return column; });
#endif
}

template <int tiles, class W, bool tall, bool fast = true>
void launch(ThinRows p, cudaStream_t stream) {
  using S = Sizes<tiles>;
  constexpr auto kernel = thin_rows_kernel<tiles, W, tall, fast>;
  static const bool allowed = (allow_shared(kernel, S::shared_bytes), true);
  static_cast<void>(allowed);
  const std::int64_t vector = tall ? S::lane : 8, blocks = ceil_div(p.m, kLong);
  p.fast_w =
      reinterpret_cast<std::uintptr_t>(p.w) % (vector * sizeof(W)) == 0 && p.ldw % vector == 0;
  p.shift = shift_for(blocks, ceil_div(p.k, kRound));
  launch_clusters(kernel, p, dim3(static_cast<unsigned>(blocks << p.shift)), 1 << p.shift,
                  kThinThreads, S::shared_bytes, stream, "thin_rows");
}

template <class W, bool tall>
void launch_width(const ThinRows& p, cudaStream_t stream) {
  if (!aligned_rows(p.x, p.ldx, p.k)) return launch<2, W, tall, false>(p, stream);
  if (p.n <= 16) return launch<1, W, tall>(p, stream);
  launch<2, W, tall>(p, stream);
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
