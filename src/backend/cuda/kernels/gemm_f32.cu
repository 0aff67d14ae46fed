// The product in fp32 without tensor cores, for --compute fp32 and for devices without bf16 ones;
// and the sum of split parts. Tile 64 x 64, 128 threads of 8 x 4 sums, 16 of K at a time in shared
// memory, the next 16 in registers meanwhile. Limit: fp32 FMA (67 TF/s on an H100); three 16-byte
// shared loads for 32 FMA.
#include "backend/cuda/kernels/tile_loop.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kTile = 64, kDepth = 16, kThreads = 128, kPad = 4, kLoads = kTile * kDepth / kThreads;

// The thread's elements of a (64, 16) part: row/column r0.. of the operand, k0.. of K. Neighbouring
// threads read neighbouring addresses: along K, or along the rows where the operand is stored
// transposed.
__device__ void fetch(const void* data, DType type, std::int64_t ld, bool transposed, int r0,
                      int rows, int k0, int k, float* v) {
  for (int i = 0; i < kLoads; ++i) {
    const int id = static_cast<int>(threadIdx.x) + i * kThreads;
    const int r = r0 + (transposed ? id % kTile : id / kDepth),
              c = k0 + (transposed ? id / kTile : id % kDepth);
    v[i] = r < rows && c < k ? load_float(data, type, transposed ? c * ld + r : r * ld + c) : 0.0f;
  }
}
__device__ void put(float (*tile)[kTile + kPad], bool transposed, const float* v) {
  for (int i = 0; i < kLoads; ++i) {
    const int id = static_cast<int>(threadIdx.x) + i * kThreads;
    tile[transposed ? id / kTile : id % kDepth][transposed ? id % kTile : id / kDepth] = v[i];
  }
}

__global__ void __launch_bounds__(kThreads)
    tiles_f32_kernel(const __grid_constant__ TileProblem p, int tiles_m, int tiles_n) {
  __shared__ float xs[kDepth][kTile + kPad], ws[kDepth][kTile + kPad];
  const TileAt tile = tile_at(blockIdx.x, tiles_m, tiles_n);
  const int m0 = tile.m * kTile, n0 = tile.n * kTile, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const StepRange range = step_range(p, blockIdx.y);
  if (dead_rows(p, m0)) return;
  float sum[8][4] = {};
  StepCursor at;
  at.seek(p, range.begin);
  for (int step = range.begin; step < range.end; ++step, at.next(p)) {
    const TileTerm& t = p.terms[at.term];
    const int end = min(at.k0 + kStepK, t.k);
    float xv[kLoads], wv[kLoads];
    fetch(t.x, t.x_type, t.ldx, t.trans_x, m0, p.m, at.k0, end, xv);
    fetch(t.w, t.w_type, t.ldw, t.trans_w, n0, p.n, at.k0, end, wv);
    for (int k = at.k0; k < end; k += kDepth) {
      __syncthreads();
      put(xs, t.trans_x, xv);
      put(ws, t.trans_w, wv);
      __syncthreads();
      fetch(t.x, t.x_type, t.ldx, t.trans_x, m0, p.m, k + kDepth, end, xv);
      fetch(t.w, t.w_type, t.ldw, t.trans_w, n0, p.n, k + kDepth, end, wv);
#pragma unroll
      for (int j = 0; j < kDepth; ++j) {
        const float4 a = *reinterpret_cast<const float4*>(&xs[j][ty * 8]),
                     b = *reinterpret_cast<const float4*>(&xs[j][ty * 8 + 4]);
        const float4 c = *reinterpret_cast<const float4*>(&ws[j][tx * 4]);
        const float xr[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}, wr[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
        for (int r = 0; r < 8; ++r)
#pragma unroll
          for (int s = 0; s < 4; ++s) sum[r][s] += xr[r] * wr[s];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 8; ++r)
#pragma unroll
    for (int s = 0; s < 4; s += 2)
      store_pair(p, m0 + ty * 8 + r, n0 + tx * 4 + s, p.alpha * sum[r][s], p.alpha * sum[r][s + 1],
                 blockIdx.y);
}

__global__ void __launch_bounds__(256) add_splits_kernel(const __grid_constant__ TileProblem p) {
  const std::int64_t size = static_cast<std::int64_t>(p.m) * p.n,
                     i = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= size) return;
  if (dead_rows(p, static_cast<int>(i / p.n))) return;
  const std::int64_t at = i / p.n * p.ldy + i % p.n;
  float sum = 0;
  for (int z = 0; z < p.splits; ++z) sum += p.partial[z * size + i];
  if (p.accumulate) sum += decay_of(p, i / p.n) * load_float(p.y, p.y_type, at);
  store_float(p.y, p.y_type, at, sum);
}

}  // namespace

TileShape tile_shape_f32() { return {kTile, kTile}; }

void tiles_f32(const TileProblem& p, cudaStream_t stream) {
  const int tiles_m = static_cast<int>(ceil_div(p.m, kTile)),
            tiles_n = static_cast<int>(ceil_div(p.n, kTile));
  const dim3 grid(static_cast<unsigned>(tiles_m) * static_cast<unsigned>(tiles_n),
                  static_cast<unsigned>(p.splits));
  tiles_f32_kernel<<<grid, kThreads, 0, stream>>>(p, tiles_m, tiles_n);
  check_launch("tiles_f32");
}

void add_splits(const TileProblem& p, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(static_cast<std::int64_t>(p.m) * p.n, 256));
  add_splits_kernel<<<blocks, 256, 0, stream>>>(p);
  check_launch("add_splits");
}

}  // namespace supersonic::cuda
