// The product of E4M3 operands on Hopper: tiles of 256 x 128 or 128 x 128 of Y by a block of three
// warpgroups. One thread of the first keeps the copy engine busy, up to four steps ahead; the other
// two multiply 128 or 64 rows each. Two steps of 128 of K are eight products in the tensor cores,
// whose own sums keep some 14 bits; then they are scaled and added to sums in fp32, while the other
// warpgroup multiplies. Blocks go in pairs that take neighbouring columns, load half of the rows
// each, and send them to both. Terms of bf16, an adapter's, add to the same sums in steps of 64.
// Limit: the 128 bytes a cycle of shared memory, where 1,979 TF/s would take 144; then power.
#include "backend/cuda/kernels/cluster.cuh"
#include "backend/cuda/kernels/fp8.cuh"
#include "backend/cuda/kernels/tile_loop.cuh"
#include "backend/cuda/kernels/wgmma_fp8.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 384, kColumns = 128, kRowBytes = 128, kWScaleBytes = kFp8WScale * 4;
[[maybe_unused]] constexpr int kBoxBytes = 64 * kRowBytes;

// waves: 64 rows that a warpgroup multiplies one after the other; pair: blocks of a cluster.
template <int waves, int pair>
struct Tiling {
  static constexpr int rows = 128 * waves, stages = waves == 2 ? 4 : 6;
  static constexpr int x_bytes = rows * kRowBytes, w_bytes = kColumns * kRowBytes,
                       stage_bytes = x_bytes + w_bytes;
  static constexpr int box_rows = rows / pair;  // of X that a block loads
  static constexpr int scale_bytes =
      rows * 4 + kWScaleBytes;  // behind the stages, for each of them
  static constexpr int shared_bytes = stages * (stage_bytes + scale_bytes) + 1024;
};

struct Fp8Launch {
  Fp8Tiles p;
  int tiles_m, tiles_n;
  CUtensorMap x[kMaxGemmTerms], w[kMaxGemmTerms];
};

template <int stages>
struct Ring {
  int stage = 0, parity = 0;
  __device__ void next() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// A term of codes has whole groups of two steps, its last ones zeros.
constexpr int kCodesStep = 128;
static_assert(kFp8Group == 2 * kCodesStep);
[[maybe_unused]] __device__ inline int groups_of(int k) { return (k + kFp8Group - 1) / kFp8Group; }

// Where a block of a pair works: pairs take neighbouring columns.
struct Corner {
  int m0, n0;
};
template <int waves, int pair>
__device__ Corner place_of(const Fp8Launch& g, int item, int rank) {
  const TileAt at = tile_at(item, g.tiles_m, g.tiles_n / pair);
  return {at.m * Tiling<waves, pair>::rows, (at.n * pair + rank) * kColumns};
}

struct Shared {
  std::uint32_t tiles, scales, full, empty;
};

template <int waves, int pair>
__device__ void produce(const Fp8Launch& g, const Shared& s, int rank) {
  using T = Tiling<waves, pair>;
  Ring<T::stages> ring;
  const int items = g.tiles_m * g.tiles_n / pair;
  for (int item = blockIdx.x / pair; item < items; item += gridDim.x / pair) {
    const Corner at = place_of<waves, pair>(g, item, rank);
    for (int i = 0; i < g.p.count; ++i) {
      const Fp8Term& t = g.p.terms[i];
      const int step = t.codes ? kCodesStep : kStepK,
                end = t.codes ? groups_of(t.k) * kFp8Group : t.k;
      for (int k0 = 0; k0 < end; k0 += step, ring.next()) {
        const std::uint32_t x = s.tiles + ring.stage * T::stage_bytes, w = x + T::x_bytes,
                            barrier = s.full + ring.stage * 8;
        barrier_wait(s.empty + ring.stage * 8, ring.parity ^ 1);
        const bool scaled = t.codes && k0 % kFp8Group == 0;  // a group's come with its first step
        barrier_expect(barrier, T::stage_bytes + (scaled ? T::scale_bytes : 0));
        const std::uint32_t part = x + rank * T::box_rows * kRowBytes;
        const int row = at.m0 + rank * T::box_rows;
        if constexpr (pair > 1) {
          copy_box_to((1 << pair) - 1, part, &g.x[i], k0, row, barrier);
        } else {
          copy_box(part, &g.x[i], k0, row, barrier);
        }
        if (scaled) {
          const std::uint32_t scales = s.scales + ring.stage * T::scale_bytes;
          const int group = k0 / kFp8Group, groups = groups_of(t.k);
          copy_bytes(scales, t.x_scales + group * t.x_scales_ld + at.m0, T::rows * 4, barrier);
          copy_bytes(scales + T::rows * 4,
                     t.w_scales + (at.n0 / kColumns * groups + group) * kFp8WScale, kWScaleBytes,
                     barrier);
        }
        if (t.trans_w) {
          for (int j = 0; j < kColumns / 64; ++j)
            copy_box(w + j * kBoxBytes, &g.w[i], at.n0 + j * 64, k0, barrier);
        } else {
          copy_box(w, &g.w[i], k0, at.n0, barrier);
        }
      }
    }
  }
}

// Products of one warpgroup run while the other scales and adds. Each waits at its own barrier.
[[maybe_unused]] __device__ inline void take_turn(int group) {
  asm volatile(
      "{.reg .pred first; setp.eq.s32 first, %0, 0;\n"
      "@first bar.sync 1, 256; @!first bar.sync 2, 256;}" ::"r"(group)
      : "memory");
}
[[maybe_unused]] __device__ inline void give_turn(int group) {
  asm volatile(
      "{.reg .pred first; setp.eq.s32 first, %0, 0;\n"
      "@first bar.arrive 2, 256; @!first bar.arrive 1, 256;}" ::"r"(group)
      : "memory");
}

// What a warp knows of itself, and how it gives a stage back to all that fill it.
struct Worker {
  int group, warp, lane;
  template <int pair>
  __device__ void release(std::uint32_t barrier) const {
    __syncwarp();
    if constexpr (pair > 1) {
      if (lane < pair) barrier_arrive_at(lane, barrier);
    } else {
      if (lane == 0) barrier_arrive(barrier);
    }
  }
};

template <int waves, int pair>
__device__ void multiply_codes(float (&sums)[waves][16][4], const Fp8Term& t, const Corner& at,
                               Ring<Tiling<waves, pair>::stages>& ring, const Shared& s,
                               const Worker& me) {
  using T = Tiling<waves, pair>;
  const int row = me.group * waves * 64 + me.warp * 16 + me.lane / 4;
  for (int left = groups_of(t.k); left > 0; --left, ring.next()) {
    const int first = ring.stage;
    barrier_wait(s.full + first * 8, ring.parity);
    ring.next();
    const int second = ring.stage;
    barrier_wait(s.full + second * 8, ring.parity);
    const std::uint32_t x[2] = {s.tiles + first * T::stage_bytes,
                                s.tiles + second * T::stage_bytes},
                        scales = s.scales + first * T::scale_bytes;
#pragma unroll
    for (int v = 0; v < waves; ++v) {
      float d[16][4];
      take_turn(me.group);
      warpgroup_begin();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint64_t dx = tile_descriptor<false>(
                                x[half] + (me.group * waves + v) * kBoxBytes, kBoxBytes),
                            dw = tile_descriptor<false>(x[half] + T::x_bytes, kBoxBytes);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (half + k == 0) {
            warpgroup_multiply_codes<false>(d, dx, dw);
          } else {
            warpgroup_multiply_codes<true>(d, dx + k * 2, dw + k * 2);
          }
        }
        warpgroup_commit();
      }
      give_turn(me.group);
      const float of_w = load_shared(scales + T::rows * 4),
                  upper = of_w * load_shared(scales + (row + v * 64) * 4),
                  lower = of_w * load_shared(scales + (row + v * 64 + 8) * 4);
      if (v == waves - 1) {
        warpgroup_wait<1>();
        me.release<pair>(s.empty + first * 8);
      }
      warpgroup_wait<0>();
      finished(d);
      if (v == waves - 1) me.release<pair>(s.empty + second * 8);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        sums[v][j][0] += d[j][0] * upper, sums[v][j][1] += d[j][1] * upper;
        sums[v][j][2] += d[j][2] * lower, sums[v][j][3] += d[j][3] * lower;
      }
    }
  }
}

template <int waves, int pair, bool tall_w>
__device__ void multiply_bf16(float (&sums)[waves][16][4], int k,
                              Ring<Tiling<waves, pair>::stages>& ring, const Shared& s,
                              const Worker& me) {
  using T = Tiling<waves, pair>;
  for (int k0 = 0; k0 < k; k0 += kStepK, ring.next()) {
    barrier_wait(s.full + ring.stage * 8, ring.parity);
    const std::uint32_t x = s.tiles + ring.stage * T::stage_bytes;
    const std::uint64_t dw = tile_descriptor<tall_w>(x + T::x_bytes, kBoxBytes);
    const int parts = (min(k - k0, kStepK) + 15) / 16;
    for (int part = 0; part < parts; ++part) {
      warpgroup_begin();
#pragma unroll
      for (int v = 0; v < waves; ++v)
        warpgroup_multiply_add<false, tall_w>(
            sums[v],
            tile_descriptor<false>(x + (me.group * waves + v) * kBoxBytes, kBoxBytes) +
                part * (kDepthBytes<false> / 16),
            dw + part * (kDepthBytes<tall_w> / 16));
      warpgroup_commit();
      warpgroup_wait<0>();
#pragma unroll
      for (int v = 0; v < waves; ++v) finished(sums[v]);
    }
    me.release<pair>(s.empty + ring.stage * 8);
  }
}

// Word i of lane q of each four lanes becomes word q of lane i.
[[maybe_unused]] __device__ inline void turn_words(std::uint32_t (&u)[4]) {
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

// Row `row` of Y and of what it is added to, if anything.
struct RowOfY {
  __nv_bfloat16* to;
  const __nv_bfloat16* base;
};

// Eight columns at `col` of a row for each lane: sums as they leave the tensor cores, base and Y by
// vectors.
__device__ void store_vectors(const Fp8Tiles& p, const RowOfY& y, bool inside, int n0, int half,
                              const float (&sums)[16][4]) {
  const int lane = threadIdx.x % 32;
  uint4 past[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int col = n0 + (j * 4 + lane % 4) * 8;
    past[j] = make_uint4(0, 0, 0, 0);
    if (y.base && inside && col < p.n) past[j] = *reinterpret_cast<const uint4*>(y.base + col);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    std::uint32_t u[4] = {past[j].x, past[j].y, past[j].z, past[j].w};
    if (y.base) turn_words(u);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* s = sums[j * 4 + i] + 2 * half;
      u[i] = pack_bf16(s[0] * p.alpha + low_bf16(u[i]), s[1] * p.alpha + high_bf16(u[i]));
    }
    turn_words(u);
    const int col = n0 + (j * 4 + lane % 4) * 8;
    if (inside && col < p.n)
      *reinterpret_cast<uint4*>(y.to + col) = make_uint4(u[0], u[1], u[2], u[3]);
  }
}

// 16 rows of sums from `first` on, 16 bytes a lane where Y is laid out for it.
[[maybe_unused]] __device__ void store_rows(const Fp8Tiles& p, int n0, int first,
                                            const float (&sums)[16][4]) {
  const int lane = threadIdx.x % 32;
  const bool whole =
      (reinterpret_cast<std::uintptr_t>(p.y) | reinterpret_cast<std::uintptr_t>(p.base)) % 16 ==
          0 &&
      p.ldy % 8 == 0 && p.n % 8 == 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane / 4 + 8 * half;
    const RowOfY y{static_cast<__nv_bfloat16*>(p.y) + row * p.ldy,
                   p.base ? static_cast<const __nv_bfloat16*>(p.base) + row * p.ldy : nullptr};
    if (whole) {
      store_vectors(p, y, row < p.m, n0, half, sums);
      continue;
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int col = n0 + i / 2 * 8 + lane % 4 * 2 + i % 2;
      if (row >= p.m || col >= p.n) continue;
      const float past = y.base ? to_float(y.base[col]) : 0.0f;
      y.to[col] = __float2bfloat16_rn(sums[i / 2][2 * half + i % 2] * p.alpha + past);
    }
  }
}

template <int waves, int pair>
__device__ void consume(const Fp8Launch& g, const Shared& s, int rank) {
  using T = Tiling<waves, pair>;
  Ring<T::stages> ring;
  const int thread = static_cast<int>(threadIdx.x);
  const Worker me{thread / 128 - 1, thread % 128 / 32, thread % 32};
  if (me.group == 1) give_turn(me.group);
  const int items = g.tiles_m * g.tiles_n / pair;
  for (int item = blockIdx.x / pair; item < items; item += gridDim.x / pair) {
    const Corner at = place_of<waves, pair>(g, item, rank);
    float sums[waves][16][4] = {};
    for (int i = 0; i < g.p.count; ++i) {
      const Fp8Term& t = g.p.terms[i];
      if (t.codes) {
        multiply_codes<waves, pair>(sums, t, at, ring, s, me);
      } else if (t.trans_w) {
        multiply_bf16<waves, pair, true>(sums, t.k, ring, s, me);
      } else {
        multiply_bf16<waves, pair, false>(sums, t.k, ring, s, me);
      }
    }
#pragma unroll
    for (int v = 0; v < waves; ++v)
      store_rows(g.p, at.n0, at.m0 + (me.group * waves + v) * 64 + me.warp * 16, sums[v]);
  }
  if (me.group == 0) take_turn(me.group);  // the last that was given
}

template <int waves, int pair>
__global__ void __launch_bounds__(kThreads, 1)
    tiles_fp8_kernel(const __grid_constant__ Fp8Launch g) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using T = Tiling<waves, pair>;
  extern __shared__ char shared[];
  __shared__ std::uint64_t barriers[2 * T::stages];
  const std::uint32_t full = shared_address(barriers);
  const std::uint32_t tiles = (shared_address(shared) + 1023) & ~1023u;
  const Shared s{tiles, tiles + T::stages * T::stage_bytes, full, full + T::stages * 8};
  const int rank = static_cast<int>(blockIdx.x) % pair;
  if (threadIdx.x == 0) {
    for (int i = 0; i < T::stages; ++i) {
      barrier_init(s.full + i * 8, 1);
      barrier_init(s.empty + i * 8, 8 * pair);  // the warps that multiply
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if constexpr (pair > 1) cluster_sync();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) produce<waves, pair>(g, s, rank);
    __syncwarp();
  } else {
    take_registers<232>();
    consume<waves, pair>(g, s, rank);
  }
  // A block stays while the other may still send to it or arrive at its barriers.
  if constexpr (pair > 1) cluster_sync();
#endif
}

template <int waves, int pair>
void launch(const Fp8Tiles& p, int tiles_m, int tiles_n, cudaStream_t stream) {
  using T = Tiling<waves, pair>;
  Fp8Launch g;
  g.p = p;
  g.tiles_m = tiles_m, g.tiles_n = tiles_n;
  for (int i = 0; i < p.count; ++i) {
    const Fp8Term& t = p.terms[i];
    const auto boxes = t.codes ? byte_boxes : bf16_boxes;
    g.x[i] = boxes(t.x, t.k, p.m, t.ldx, T::box_rows);
    g.w[i] =
        t.trans_w ? boxes(t.w, p.n, t.k, t.ldw, kStepK) : boxes(t.w, t.k, p.n, t.ldw, kColumns);
  }
  const auto kernel = tiles_fp8_kernel<waves, pair>;
  static const bool allowed = (allow_shared(kernel, T::shared_bytes), true);
  static_cast<void>(allowed);
  const int items = tiles_m * tiles_n, most = device_limits().multiprocessors / pair * pair;
  launch_tiles<pair, Fp8Launch>(kernel, g, static_cast<unsigned>(items < most ? items : most),
                                kThreads, T::shared_bytes, stream, "tiles_fp8");
}

template <int waves>
void launch(const Fp8Tiles& p, cudaStream_t stream) {
  const int tiles_m = static_cast<int>(ceil_div(p.m, 128 * waves)),
            tiles_n = static_cast<int>(ceil_div(p.n, kColumns));
  tiles_n % 2 == 0 ? launch<waves, 2>(p, tiles_m, tiles_n, stream)
                   : launch<waves, 1>(p, tiles_m, tiles_n, stream);
}

// The taller tile where it makes as many waves of the device as full as the other would.
bool tall(std::int64_t m, std::int64_t n) {
  const std::int64_t units = device_limits().multiprocessors, across = ceil_div(n, kColumns);
  const std::int64_t tall_time = ceil_div(ceil_div(m, 256) * across, units) * 2,
                     flat_time = ceil_div(ceil_div(m, 128) * across, units);
  return m > 128 && tall_time <= flat_time + flat_time / 8;
}

}  // namespace

void tiles_fp8(const Fp8Tiles& p, cudaStream_t stream) {
  tall(p.m, p.n) ? launch<2>(p, stream) : launch<1>(p, stream);
}

}  // namespace supersonic::cuda
