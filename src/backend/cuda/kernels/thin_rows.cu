// Y (M, N) = X (M, K) * W^T with N at most 32, such as a token's way into a LoRA adapter and back.
// A block takes 128 rows of X, a warp 16, and all columns of Y. X goes from memory into registers
// that are mma.sync's right operand as they are: since the order of K does not matter as long as
// both operands agree on it, a lane's eight neighbours of K stand for the eight places of K that it
// holds in two products. W, the left operand, is rounded to bf16 on its way into shared memory and
// lies there as the lanes read it, a chunk ahead; X is `depth` pieces of 32 of K ahead. Bytes
// moved: X once, W once for each 128 rows from the L2 cache. Limit: the memory's rate.
#include "backend/cuda/kernels/thin.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kRows = 16 * kWarps;

// tiles: of sixteen columns.
template <int tiles>
struct Sizes {
  static constexpr int blocks = tiles == 1 ? 2 : 1;  // at once on a multiprocessor
  static constexpr int octets = 4 / blocks, chunk = octets * 8 * kThreads;  // weights
  static constexpr int columns = 16 * tiles, pieces = chunk / columns / 32,
                       span = pieces * 32;  // of K in a chunk
  static constexpr int most = 8 / blocks, depth = pieces < most ? pieces : most;
  static_assert(pieces % depth == 0);
  static constexpr int pitch = columns + 2;  // floats from row to row of the block's sums
  static constexpr int weight_bytes = 2 * chunk * 2, sum_bytes = kRows * pitch * 4;
  static constexpr int shared_bytes = weight_bytes > sum_bytes ? weight_bytes : sum_bytes;
  static_assert(shared_bytes <= 48 << 10);
};

#if __CUDA_ARCH__ >= 900
// The thread's weights of a chunk: eight of K of one column, `octets` times.
template <int tiles, class W, bool tall>
struct Weights {
  using S = Sizes<tiles>;
  float v[S::octets][8];

  static __device__ int column(int id) { return tall ? id % S::columns : id / (S::span / 8); }
  static __device__ int octet_of(int id) { return tall ? id / S::columns : id % (S::span / 8); }

  __device__ void fetch(const ThinRows& p, int k0) {
    const auto* w = static_cast<const W*>(p.w);
    const bool vectors = !tall && reinterpret_cast<std::uintptr_t>(w) % 16 == 0 && p.ldw % 8 == 0;
#pragma unroll
    for (int i = 0; i < S::octets; ++i) {
      const int id = static_cast<int>(threadIdx.x) + i * kThreads;
      const int n = column(id), k = k0 + octet_of(id) * 8;
      if constexpr (tall) {
        std::int64_t ld = p.ldw;
        asm volatile("" : "+l"(ld));  // its multiples are not worth registers in the loop
        const W* from = w + k * ld + n;
        const int count = n < p.n ? p.k - k : 0;
#pragma unroll
        for (int e = 0; e < 8; ++e, from += ld) v[i][e] = e < count ? to_float(*from) : 0.0f;
      } else {
        const int count = n < p.n ? max(0, min(8, p.k - k)) : 0;
        constexpr DType type = sizeof(W) == 4 ? DType::f32 : DType::bf16;
        dense8(w, type, vectors, n * p.ldw + k, count, v[i]);
      }
    }
  }

  __device__ void put(std::uint32_t* to) const {
#pragma unroll
    for (int i = 0; i < S::octets; ++i) {
      const int id = static_cast<int>(threadIdx.x) + i * kThreads;
      const int n = column(id), o = octet_of(id);
      std::uint32_t* at = to + ((o / 4 * tiles + n / 16) * 64 + n % 8 * 4 + o % 4) * 4 + n / 8 % 2;
#pragma unroll
      for (int h = 0; h < 2; ++h) {  // of the two products
        at[h * 128] = pack_bf16(v[i][4 * h], v[i][4 * h + 1]);
        at[h * 128 + 2] = pack_bf16(v[i][4 * h + 2], v[i][4 * h + 3]);
      }
    }
  }
};

// Rows r and r + 8 of the lane, eight of K each, from the lane's place in the current chunk on.
template <bool fast>
struct Lines {
  const __nv_bfloat16 *upper, *lower;
  int upper_left, lower_left;  // elements until the block's part of K ends; below 1 outside of X

  __device__ Lines(const ThinRows& p, int row, int k, int end)
      : upper(static_cast<const __nv_bfloat16*>(p.x) + row * p.ldx + k),
        lower(upper + 8 * p.ldx),
        upper_left(row < p.m ? end - k : 0),
        lower_left(row + 8 < p.m ? end - k : 0) {}
  __device__ void load(uint4 (&to)[2], int piece) const {
    if constexpr (fast) {
      to[0] = load_once(upper + piece * 32, upper_left > piece * 32);
      to[1] = load_once(lower + piece * 32, lower_left > piece * 32);
    } else {
      to[0] = load_pieces(upper + piece * 32, upper_left - piece * 32);
      to[1] = load_pieces(lower + piece * 32, lower_left - piece * 32);
    }
  }
  __device__ void advance(int k) { upper += k, lower += k, upper_left -= k, lower_left -= k; }
};

template <int tiles>
__device__ void multiply(float (&sums)[tiles][2][4], const uint4 (&x)[2], const uint4* weights) {
#pragma unroll
  for (int j = 0; j < tiles; ++j) {
    const uint4 first = weights[j * 64], second = weights[j * 64 + 32];
    const std::uint32_t a[4] = {first.x, first.y, first.z, first.w},
                        b[4] = {second.x, second.y, second.z, second.w};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      multiply_add(sums[j][r], a, x[r].x, x[r].y);
      multiply_add(sums[j][r], b, x[r].z, x[r].w);
    }
  }
}

// The block's share of the rows of the cluster: its own sums and those of the others, in order.
template <int tiles>
__device__ void leave(const ThinRows& p, std::uint32_t sums, int first_row, int rank) {
  using S = Sizes<tiles>;
  const int rows = kRows / p.splits;
  for (int i = threadIdx.x; i < rows * S::columns / 2; i += kThreads) {
    const int row = rank * rows + i / (S::columns / 2), col = i % (S::columns / 2) * 2;
    if (first_row + row >= p.m || col >= p.n) continue;
    float2 total = make_float2(0, 0);
    for (int z = 0; z < p.splits; ++z) {
      const float2 part = load_pair_of(z, sums + (row * S::pitch + col) * 4);
      total.x += part.x, total.y += part.y;
    }
    store_thin(p.result, (first_row + row) * p.result.ldy + col, total.x, total.y, col + 1 < p.n);
  }
}
#endif

template <int tiles, class W, bool tall, bool fast>
__global__ void __launch_bounds__(kThreads, Sizes<tiles>::blocks)
    thin_rows_kernel(const __grid_constant__ ThinRows p) {
#if __CUDA_ARCH__ >= 900
  using S = Sizes<tiles>;
  __shared__ __align__(16) char shared[S::shared_bytes];
  auto* weights = reinterpret_cast<std::uint32_t*>(shared);
  const int rank = static_cast<int>(blockIdx.x) % p.splits,
            first_row = static_cast<int>(blockIdx.x) / p.splits * kRows;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp * 16;
  const int chunks = (p.k + S::span - 1) / S::span;
  const int begin = static_cast<int>(static_cast<std::int64_t>(chunks) * rank / p.splits),
            end = static_cast<int>(static_cast<std::int64_t>(chunks) * (rank + 1) / p.splits);
  Weights<tiles, W, tall> ahead;
  ahead.fetch(p, begin * S::span);
  Lines<fast> lines(p, first_row + row + lane / 4, begin * S::span + lane % 4 * 8,
                    min(p.k, end * S::span));
  uint4 x[S::depth][2];
#pragma unroll
  for (int i = 0; i < S::depth; ++i) lines.load(x[i], i);
  ahead.put(weights);
  __syncthreads();
  float sums[tiles][2][4] = {};
  for (int chunk = begin; chunk < end; ++chunk) {
    if (chunk + 1 < end) ahead.fetch(p, (chunk + 1) * S::span);
    const auto* here =
        reinterpret_cast<const uint4*>(weights + (chunk - begin) % 2 * (S::chunk / 2)) + lane;
#pragma unroll
    for (int i = 0; i < S::pieces; ++i) {
      multiply(sums, x[i % S::depth], here + i * tiles * 64);
      lines.load(x[i % S::depth], i + S::depth);
    }
    lines.advance(S::span);
    if (chunk + 1 < end) ahead.put(weights + (chunk + 1 - begin) % 2 * (S::chunk / 2));
    __syncthreads();
  }
  auto* out = reinterpret_cast<float*>(shared) + (row + lane % 4 * 2) * S::pitch + lane / 4;
#pragma unroll
  for (int j = 0; j < tiles; ++j)
#pragma unroll
    for (int i = 0; i < 8; ++i)  // rows of eight, columns of eight, neighbouring rows
      out[(i / 4 * 8 + i % 2) * S::pitch + j * 16 + i / 2 % 2 * 8] = sums[j][i / 4][i % 4];
  cluster_sync();
  leave<tiles>(p, shared_address(shared), first_row, rank);
  cluster_sync();  // nobody leaves while another may read its sums
#endif
}

template <int tiles, class W, bool tall, bool fast = true>
void launch(ThinRows p, cudaStream_t stream) {
  const std::int64_t blocks = ceil_div(p.m, kRows);
  p.splits = splits_for(blocks, ceil_div(p.k, Sizes<tiles>::span), Sizes<tiles>::blocks);
  const dim3 grid(static_cast<unsigned>(blocks * p.splits));
  launch_clusters(thin_rows_kernel<tiles, W, tall, fast>, p, grid, p.splits, kThreads, 0, stream,
                  "thin_rows");
}

template <class W, bool tall>
void launch_width(const ThinRows& p, cudaStream_t stream) {
  if (!aligned_rows(p.x, p.ldx, p.k)) return launch<4, W, tall, false>(p, stream);
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
