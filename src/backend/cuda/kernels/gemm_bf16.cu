// The product of bf16 operands in the tensor cores of sm_80 and later, by mma.sync. Tiles of 128 x
// 128 (8 warps of 64 x 32) or, for results too small to fill the device, 64 x 64 (4 warps of 32 x
// 32); 64 of K a step, three steps in flight by cp.async. Either operand may be stored transposed:
// its tile is then held as it lies, and ldmatrix turns it. Operands at odd addresses are copied
// element by element. Limit: the rate of mma.sync (about 0.62 of wgmma's on Hopper, all of the peak
// before it).
#include "backend/cuda/kernels/mma.cuh"
#include "backend/cuda/kernels/tile_loop.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kStages = 3;

// One operand's part of a step, copied into a tile: `size` rows of the operand (m or n) by 64 of K.
template <int size, int threads>
__device__ void copy_tile(std::uint32_t tile, char* tile_generic, const void* data, std::int64_t ld,
                          bool tall, bool aligned, int r0, int rows, int k0, int k) {
  const auto* source = static_cast<const __nv_bfloat16*>(data);
#pragma unroll
  for (int i = 0; i < size * 8 / threads; ++i) {
    const int id = static_cast<int>(threadIdx.x) + i * threads;
    int row, chunk, outer, outer_end, first, end;
    if (tall) {
      row = id / (size / 8), chunk = id % (size / 8);
      outer = k0 + row, outer_end = k, first = r0 + chunk * 8, end = rows;
    } else {
      row = id / 8, chunk = id % 8;
      outer = r0 + row, outer_end = rows, first = k0 + chunk * 8, end = k;
    }
    const std::uint32_t offset = tall ? swizzled<size / 8>(row, chunk) : swizzled<8>(row, chunk);
    const int valid = outer < outer_end ? max(0, min(8, end - first)) : 0;
    const __nv_bfloat16* from = valid > 0 ? source + outer * ld + first : source;
    if (aligned) {
      copy_async(tile + offset, from, valid * 2);
    } else {
      std::uint32_t words[4] = {};
      for (int e = 0; e < 8; ++e)
        if (e < valid)
          words[e / 2] |= static_cast<std::uint32_t>(__bfloat16_as_ushort(from[e])) << (e % 2 * 16);
      *reinterpret_cast<uint4*>(tile_generic + offset) =
          make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

template <int bm, int bn, int warps_m, int warps_n>
struct Tiling {
  static constexpr int threads = 32 * warps_m * warps_n, wm = bm / warps_m, wn = bn / warps_n;
  static constexpr int x_bytes = bm * kStepK * 2, w_bytes = bn * kStepK * 2,
                       stage_bytes = x_bytes + w_bytes;
  static constexpr int shared_bytes = kStages * stage_bytes;
  using Sums = float[wm / 16][wn / 8][4];

  template <bool tall_x, bool tall_w>
  static __device__ void multiply(Sums& sums, std::uint32_t x, std::uint32_t w, int m, int n) {
#pragma unroll
    for (int k = 0; k < kStepK; k += 16) {
      std::uint32_t a[wm / 16][4], b[wn / 16][4];
#pragma unroll
      for (int i = 0; i < wm / 16; ++i)
        fragment_a<tall_x, tall_x ? bm / 8 : 8>(a[i], x, m + i * 16, k);
#pragma unroll
      for (int j = 0; j < wn / 16; ++j)
        fragment_b<tall_w, tall_w ? bn / 8 : 8>(b[j], w, n + j * 16, k);
#pragma unroll
      for (int i = 0; i < wm / 16; ++i)
#pragma unroll
        for (int j = 0; j < wn / 8; ++j)
          multiply_add(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
};

template <int bm, int bn, int warps_m, int warps_n>
__global__ void __launch_bounds__(32 * warps_m * warps_n, bm == 128 ? 1 : 3)
    tiles_bf16_kernel(const __grid_constant__ TileProblem p, int tiles_m, int tiles_n) {
  using T = Tiling<bm, bn, warps_m, warps_n>;
  extern __shared__ __align__(128) char shared[];
  const std::uint32_t base = shared_address(shared);
  const TileAt tile = tile_at(blockIdx.x, tiles_m, tiles_n);
  const int m0 = tile.m * bm, n0 = tile.n * bn, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int m = warp % warps_m * T::wm, n = warp / warps_m * T::wn;
  const StepRange range = step_range(p, blockIdx.y);
  if (dead_rows(p, m0)) return;
  StepCursor load, compute;
  load.seek(p, range.begin);
  compute = load;
  auto fetch = [&](int step) {
    if (step < range.end) {
      const TileTerm& t = p.terms[load.term];
      const int stage = step % kStages * T::stage_bytes;
      copy_tile<bm, T::threads>(base + stage, shared + stage, t.x, t.ldx, t.trans_x, t.aligned_x,
                                m0, p.m, load.k0, t.k);
      copy_tile<bn, T::threads>(base + stage + T::x_bytes, shared + stage + T::x_bytes, t.w, t.ldw,
                                t.trans_w, t.aligned_w, n0, p.n, load.k0, t.k);
      load.next(p);
    }
    commit_copies();
  };
  typename T::Sums sums = {};
  for (int s = 0; s < kStages - 1; ++s) fetch(range.begin + s);
  for (int step = range.begin; step < range.end; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads();
    fetch(step + kStages - 1);
    const TileTerm& t = p.terms[compute.term];
    const std::uint32_t x = base + step % kStages * T::stage_bytes, w = x + T::x_bytes;
    if (t.trans_x) {
      t.trans_w ? T::template multiply<true, true>(sums, x, w, m, n)
                : T::template multiply<true, false>(sums, x, w, m, n);
    } else {
      t.trans_w ? T::template multiply<false, true>(sums, x, w, m, n)
                : T::template multiply<false, false>(sums, x, w, m, n);
    }
    compute.next(p);
  }
#pragma unroll
  for (int i = 0; i < T::wm / 16; ++i)
#pragma unroll
    for (int j = 0; j < T::wn / 8; ++j) {
      const int row = m0 + m + i * 16 + lane / 4, col = n0 + n + j * 8 + lane % 4 * 2;
      store_pair(p, row, col, p.alpha * sums[i][j][0], p.alpha * sums[i][j][1], blockIdx.y);
      store_pair(p, row + 8, col, p.alpha * sums[i][j][2], p.alpha * sums[i][j][3], blockIdx.y);
    }
}

template <int bm, int bn, int warps_m, int warps_n>
void launch(const TileProblem& p, cudaStream_t stream) {
  using T = Tiling<bm, bn, warps_m, warps_n>;
  const int tiles_m = static_cast<int>(ceil_div(p.m, bm)),
            tiles_n = static_cast<int>(ceil_div(p.n, bn));
  const dim3 grid(static_cast<unsigned>(tiles_m) * static_cast<unsigned>(tiles_n),
                  static_cast<unsigned>(p.splits));
  const auto kernel = tiles_bf16_kernel<bm, bn, warps_m, warps_n>;
  static const bool allowed = (allow_shared(kernel, T::shared_bytes), true);
  static_cast<void>(allowed);
  kernel<<<grid, T::threads, T::shared_bytes, stream>>>(p, tiles_m, tiles_n);
  check_launch("tiles_bf16");
}

bool large_tiles(std::int64_t m, std::int64_t n) {
  return m > 64 && n > 64 && ceil_div(m, 128) * ceil_div(n, 128) >= device_limits().multiprocessors;
}

}  // namespace

TileShape tile_shape_bf16(std::int64_t m, std::int64_t n) {
  return large_tiles(m, n) ? TileShape{128, 128} : TileShape{64, 64};
}

void tiles_bf16(const TileProblem& p, cudaStream_t stream) {
  large_tiles(p.m, p.n) ? launch<128, 128, 2, 4>(p, stream) : launch<64, 64, 2, 2>(p, stream);
}

}  // namespace supersonic::cuda
