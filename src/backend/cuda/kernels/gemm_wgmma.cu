// The product of bf16 operands on Hopper: tiles of 128 x 256 or 128 x 128 of Y by a block of three
// warpgroups. One thread of the first keeps the copy engine busy, kStages steps of 64 of K ahead;
// the other two multiply 64 rows each by wgmma, straight from shared memory, sums in registers.
// Blocks stay and take one tile after another, so that the next tile's operands arrive while sums
// are stored. Where Y has an even number of rows of tiles, blocks go in pairs, one above the other:
// each loads half of their columns' operand and sends it to both, so that a third less crosses the
// L2 cache. Stored-transposed operands are read as they lie. Limit: the tensor cores, 94 % busy in
// long products, at the clock that the card's power allows (989 TF/s at 1.83 GHz).
#include "backend/cuda/kernels/cluster.cuh"
#include "backend/cuda/kernels/tile_loop.cuh"
#include "backend/cuda/kernels/wgmma_products.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kRows = 128, kThreads = 384, kRowBytes = kStepK * 2;
[[maybe_unused]] constexpr int kBoxBytes = 64 * kRowBytes;

struct WarpgroupProblem {
  TileProblem p;
  int tiles_m, tiles_n;
  CUtensorMap x[kMaxGemmTerms], w[kMaxGemmTerms];
};

template <int columns>
struct Tiling {
  static constexpr int stages = columns == 256 ? 4 : 6;
  static constexpr int x_bytes = kRows * kRowBytes, w_bytes = columns * kRowBytes,
                       stage_bytes = x_bytes + w_bytes;
  static constexpr int shared_bytes =
      stages * stage_bytes + 1024;  // tiles begin at multiples of 1,024
};

// Place in the ring of stages.
template <int stages>
struct Ring {
  int stage = 0, parity = 0;
  __device__ void next() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

struct Work {
  int m0, n0, split;
  bool dead;  // for all blocks of the cluster
};

// The items of a cluster, a tile for each of its blocks, one above the other.
template <int columns, int pair>
struct Items {
  const WarpgroupProblem& g;
  const int rank = static_cast<int>(blockIdx.x) % pair, tiles = g.tiles_m / pair * g.tiles_n,
            end = tiles * g.p.splits, step = static_cast<int>(gridDim.x) / pair;
  int item = static_cast<int>(blockIdx.x) / pair;

  __device__ Work work() const {
    const TileAt at = tile_at(item % tiles, g.tiles_m / pair, g.tiles_n);
    const int first = at.m * pair * kRows;
    return {first + rank * kRows, at.n * columns, item / tiles, dead_rows(g.p, first)};
  }
};

// The tile of W, of which each block of a pair fetches its half for both.
template <int columns, int pair>
__device__ void fetch_w(const CUtensorMap* map, bool tall, std::uint32_t to, int n0, int k0,
                        std::uint32_t barrier, int rank) {
  constexpr int part = columns / pair;
  const auto fetch = [&](int row, int c, int r) {
    if constexpr (pair > 1) {
      copy_box_to((1 << pair) - 1, to + row * kRowBytes, map, c, r, barrier);
    } else {
      copy_box(to + row * kRowBytes, map, c, r, barrier);
    }
  };
  const int first = rank * part;
  if (!tall) return fetch(first, k0, n0 + first);
  for (int i = first; i < first + part; i += 64) fetch(i, n0 + i, k0);
}

template <int columns, int pair>
__device__ void produce(const WarpgroupProblem& g, std::uint32_t tiles, std::uint32_t full,
                        std::uint32_t empty) {
  using T = Tiling<columns>;
  Ring<T::stages> ring;
  const TileProblem& p = g.p;
  for (Items<columns, pair> items{g}; items.item < items.end; items.item += items.step) {
    const Work work = items.work();
    if (work.dead) continue;
    const StepRange range = step_range(p, work.split);
    StepCursor at;
    at.seek(p, range.begin);
    for (int step = range.begin; step < range.end; ++step, at.next(p), ring.next()) {
      const TileTerm& t = p.terms[at.term];
      const std::uint32_t x = tiles + ring.stage * T::stage_bytes, w = x + T::x_bytes,
                          barrier = full + ring.stage * 8;
      barrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
      barrier_expect(barrier, T::stage_bytes);
      if (t.trans_x) {
        for (int i = 0; i < kRows / 64; ++i)
          copy_box(x + i * kBoxBytes, &g.x[at.term], work.m0 + i * 64, at.k0, barrier);
      } else {
        copy_box(x, &g.x[at.term], at.k0, work.m0, barrier);
      }
      fetch_w<columns, pair>(&g.w[at.term], t.trans_w, w, work.n0, at.k0, barrier, items.rank);
    }
  }
}

// Says that a warpgroup has read a stage, to all that fill it.
template <int pair>
__device__ void release(std::uint32_t barrier) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  if constexpr (pair > 1) {
    if (thread < pair) barrier_arrive_at(thread, barrier);
  } else {
    if (thread == 0) barrier_arrive(barrier);
  }
}

// Steps of one term: products of a step are issued while those of the step before finish, whose
// stage is then given back.
template <int columns, int pair, bool tall_x, bool tall_w>
__device__ void multiply(float (&sums)[columns / 8][4], int steps,
                         Ring<Tiling<columns>::stages>& ring, std::uint32_t tiles,
                         std::uint32_t full, std::uint32_t empty, int group) {
  using T = Tiling<columns>;
  int previous = 0;
  for (int i = 0; i < steps; ++i, ring.next()) {
    barrier_wait(full + ring.stage * 8, ring.parity);
    const std::uint32_t x = tiles + ring.stage * T::stage_bytes;
    const std::uint64_t dx = tile_descriptor<tall_x>(x + group * kBoxBytes, kBoxBytes),
                        dw = tile_descriptor<tall_w>(x + T::x_bytes, kBoxBytes);
    warpgroup_begin();
#pragma unroll
    for (int k = 0; k < kStepK / 16; ++k)
      warpgroup_multiply_add<tall_x, tall_w>(sums, dx + k * (kDepthBytes<tall_x> / 16),
                                             dw + k * (kDepthBytes<tall_w> / 16));
    warpgroup_commit();
    if (i > 0) {
      warpgroup_wait<1>();
      release<pair>(empty + previous * 8);
    }
    previous = ring.stage;
  }
  warpgroup_wait<0>();
  if (steps > 0) release<pair>(empty + previous * 8);
}

// Word i of lane q of each four lanes becomes word q of lane i.
[[maybe_unused]] __device__ inline void transpose_words(std::uint32_t (&u)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int b = 0; b < 4; b += 2) {
    const std::uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? u[b] : u[b + 1], 1);
    u[b] = odd ? got : u[b], u[b + 1] = odd ? u[b + 1] : got;
  }
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    const std::uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? u[b] : u[b + 2], 2);
    u[b] = upper ? got : u[b], u[b + 2] = upper ? u[b + 2] : got;
  }
}

// 16 rows of sums as bf16, 16 bytes a lane.
template <int columns>
__device__ void store_bf16(const TileProblem& p, int n0, int first,
                           const float (&sums)[columns / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane / 4 + 8 * half;
    auto* to = static_cast<__nv_bfloat16*>(p.y) + row * p.ldy;
#pragma unroll
    for (int j = 0; j < columns / 8; j += 4) {
      std::uint32_t u[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        u[i] = pack_bf16(sums[j + i][2 * half], sums[j + i][2 * half + 1]);
      transpose_words(u);
      const int col = n0 + (j + lane % 4) * 8;
      if (row >= p.m || col >= p.n) continue;
      *reinterpret_cast<uint4*>(to + col) = make_uint4(u[0], u[1], u[2], u[3]);
    }
  }
}

// 16 rows of sums as fp32, into Y or the partial sums. decay: of each row, where sums are added.
template <int columns>
__device__ void store_f32(float* y, std::int64_t ld, bool add, const float* decay, int m, int n,
                          int n0, int first, const float (&sums)[columns / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane / 4 + 8 * half;
    if (row >= m) continue;
    float* to = y + row * ld;
    const float factor = decay ? decay[row] : 1.0f;
#pragma unroll
    for (int j = 0; j < columns / 8; ++j) {
      const int col = n0 + j * 8 + lane % 4 * 2;
      if (col >= n) continue;
      float2 v = make_float2(sums[j][2 * half], sums[j][2 * half + 1]);
      auto* at = reinterpret_cast<float2*>(to + col);
      if (add) v.x += factor * at->x, v.y += factor * at->y;
      *at = v;
    }
  }
}

// The warp's 16 rows from `first` on, whole vectors where Y is laid out for them.
template <int columns>
__device__ void store_sums(const TileProblem& p, const Work& work, int first,
                           const float (&sums)[columns / 8][4]) {
  const auto address = reinterpret_cast<std::uintptr_t>(p.y);
  if (p.splits > 1 && p.n % 2 == 0) {
    float* part = p.partial + static_cast<std::int64_t>(work.split) * p.m * p.n;
    return store_f32<columns>(part, p.n, false, nullptr, p.m, p.n, work.n0, first, sums);
  }
  if (p.splits == 1 && p.y_type == DType::bf16 && !p.accumulate && address % 16 == 0 &&
      p.ldy % 8 == 0 && p.n % 8 == 0)
    return store_bf16<columns>(p, work.n0, first, sums);
  if (p.splits == 1 && p.y_type == DType::f32 && address % 8 == 0 && p.ldy % 2 == 0 && p.n % 2 == 0)
    return store_f32<columns>(static_cast<float*>(p.y), p.ldy, p.accumulate, p.decay, p.m, p.n,
                              work.n0, first, sums);
  const int row = first + static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
  for (int j = 0; j < columns / 8; ++j) {
    const int col = work.n0 + j * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
    store_pair(p, row, col, sums[j][0], sums[j][1], work.split);
    store_pair(p, row + 8, col, sums[j][2], sums[j][3], work.split);
  }
}

template <int columns, int pair>
__device__ void consume(const WarpgroupProblem& g, std::uint32_t tiles, std::uint32_t full,
                        std::uint32_t empty) {
  using T = Tiling<columns>;
  Ring<T::stages> ring;
  const TileProblem& p = g.p;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, warp = threadIdx.x % 128 / 32;
  for (Items<columns, pair> items{g}; items.item < items.end; items.item += items.step) {
    const Work work = items.work();
    if (work.dead) continue;
    const StepRange range = step_range(p, work.split);
    float sums[columns / 8][4] = {};
    int before = 0;  // steps of the terms so far
    for (int i = 0; i < p.count; ++i) {
      const TileTerm& t = p.terms[i];
      const int of_term = (t.k + kStepK - 1) / kStepK;
      const int steps = min(before + of_term, range.end) - max(before, range.begin);
      before += of_term;
      if (steps <= 0) continue;
      if (t.trans_x) {
        t.trans_w
            ? multiply<columns, pair, true, true>(sums, steps, ring, tiles, full, empty, group)
            : multiply<columns, pair, true, false>(sums, steps, ring, tiles, full, empty, group);
      } else {
        t.trans_w
            ? multiply<columns, pair, false, true>(sums, steps, ring, tiles, full, empty, group)
            : multiply<columns, pair, false, false>(sums, steps, ring, tiles, full, empty, group);
      }
    }
    if (p.alpha != 1)
#pragma unroll
      for (int j = 0; j < columns / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[j][i] *= p.alpha;
    store_sums<columns>(p, work, work.m0 + group * 64 + warp * 16, sums);
  }
}

template <int columns, int pair>
__global__ void __launch_bounds__(kThreads, 1)
    tiles_wgmma_kernel(const __grid_constant__ WarpgroupProblem g) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using T = Tiling<columns>;
  extern __shared__ char shared[];
  __shared__ std::uint64_t barriers[2 * T::stages];
  const std::uint32_t tiles = (shared_address(shared) + 1023) & ~1023u,
                      full = shared_address(barriers), empty = full + T::stages * 8;
  if (threadIdx.x == 0) {
    for (int s = 0; s < T::stages; ++s) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, 2 * pair);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if constexpr (pair > 1) cluster_sync();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) produce<columns, pair>(g, tiles, full, empty);
  } else {
    take_registers<232>();
    consume<columns, pair>(g, tiles, full, empty);
    // A block stays while the other may arrive at its barriers. What it was sent has come.
    if constexpr (pair > 1) cluster_sync();
  }
#endif
}

// The operand (rows, k), or (k, rows) where it is stored transposed.
CUtensorMap operand_boxes(const void* data, bool transposed, int rows, int k, std::int64_t ld,
                          int tile_rows) {
  return transposed ? bf16_boxes(data, rows, k, ld, kStepK)
                    : bf16_boxes(data, k, rows, ld, tile_rows);
}

template <int columns, int pair>
void launch_kernel(const WarpgroupProblem& g, cudaStream_t stream) {
  using T = Tiling<columns>;
  const auto kernel = tiles_wgmma_kernel<columns, pair>;
  static const bool allowed = (allow_shared(kernel, T::shared_bytes), true);
  static_cast<void>(allowed);
  const std::int64_t items = static_cast<std::int64_t>(g.tiles_m) * g.tiles_n * g.p.splits,
                     most = device_limits().multiprocessors / pair * pair;
  launch_tiles<pair, WarpgroupProblem>(kernel, g,
                                       static_cast<unsigned>(items < most ? items : most), kThreads,
                                       T::shared_bytes, stream, "tiles_wgmma");
}

template <int columns>
void launch(const TileProblem& p, cudaStream_t stream) {
  WarpgroupProblem g;
  g.p = p;
  g.tiles_m = static_cast<int>(ceil_div(p.m, kRows));
  g.tiles_n = static_cast<int>(ceil_div(p.n, columns));
  const bool paired = g.tiles_m % 2 == 0;
  for (int i = 0; i < p.count; ++i) {
    const TileTerm& t = p.terms[i];
    g.x[i] = operand_boxes(t.x, t.trans_x, p.m, t.k, t.ldx, kRows);
    g.w[i] = operand_boxes(t.w, t.trans_w, p.n, t.k, t.ldw, paired ? columns / 2 : columns);
  }
  paired ? launch_kernel<columns, 2>(g, stream) : launch_kernel<columns, 1>(g, stream);
}

std::int64_t waves(std::int64_t m, std::int64_t n, std::int64_t columns) {
  return ceil_div(ceil_div(m, kRows) * ceil_div(n, columns), device_limits().multiprocessors);
}

// The larger tile where it makes as many waves of the device as full as the smaller would.
int columns_for(std::int64_t m, std::int64_t n) {
  const std::int64_t wide = waves(m, n, 256) * 2, slim = waves(m, n, 128);
  return n > 128 && wide <= slim + slim / 8 ? 256 : 128;
}

}  // namespace

double wgmma_waves(std::int64_t m, std::int64_t n) {
  constexpr double kSlim = 9.0 / 16;  // a wave of the smaller tile, in waves of the larger
  return columns_for(m, n) == 256 ? static_cast<double>(waves(m, n, 256))
                                  : kSlim * static_cast<double>(waves(m, n, 128));
}

TileShape tile_shape_wgmma(std::int64_t m, std::int64_t n) { return {kRows, columns_for(m, n)}; }

void tiles_wgmma(const TileProblem& p, cudaStream_t stream) {
  columns_for(p.m, p.n) == 256 ? launch<256>(p, stream) : launch<128>(p, stream);
}

}  // namespace supersonic::cuda
