// Attention forward on Hopper for bf16 and head sizes 64 and 128. A block takes 128 queries of a
// few heads, one after another (attention_blocks.cuh): one warpgroup's first thread brings tiles of
// 128 keys and of values, two of each in flight, by the copy engine; two warpgroups hold 64 queries
// each. While the tensor cores add the probabilities of one tile times its values, the warpgroup
// turns the next tile's scores, already there, into probabilities (arXiv 2407.08608, section 3.2);
// the other warpgroup fills what gaps remain. Scores, probabilities and the output stay in
// registers. Tiles outside of the block's key range are not read. Limit: the tensor cores, and
// close behind them the exponentials, 16 a cycle and multiprocessor.
#include "backend/cuda/kernels/attention_blocks.cuh"
#include "backend/cuda/kernels/attention_tiles.cuh"
#include "backend/cuda/kernels/wgmma_products.cuh"

namespace supersonic::cuda {

// Barriers: arrival and release of the queries, and of each stage of keys and of values.
struct AttentionBarriers {
  std::uint32_t base;
  __device__ std::uint32_t q_full() const { return base; }
  __device__ std::uint32_t q_empty() const { return base + 8; }
  __device__ std::uint32_t full(bool values, int stage) const {
    return base + 16 + (values * kStages + stage) * 16;
  }
  __device__ std::uint32_t empty(bool values, int stage) const { return full(values, stage) + 8; }
  static constexpr int kStages = 2, kCount = 2 + 4 * kStages;
};

namespace {

constexpr int kQueries = kBlockQueries, kKeys = 128, kStages = AttentionBarriers::kStages,
              kThreads = 384;
[[maybe_unused]] constexpr int kBox =
    kKeys * 128;  // bytes of 64 columns of a tile; queries and keys have as many rows

struct ForwardCall {
  AttentionForward a;
  RowBlocks blocks;
  CUtensorMap q, k, v;
};

using Ring = StageRing<kStages>;  // goes on from one head to the next

// Short products, for whose scores the exponentials take as long as the tensor cores.
template <int D>
constexpr bool kTurns = D == 64;
template <int D>
constexpr int kTileBytes = (kKeys * D) * 2;
template <int D>
constexpr int kSharedBytes = (1 + 2 * kStages) * kTileBytes<D> + 1024;

// One thread.
template <int D>
__device__ void produce(const ForwardCall& c, std::uint32_t tiles, const AttentionBarriers& b,
                        int first_head, int first, const KeyRange& all) {
  const AttentionShape& s = c.a.shape;
  Ring ring;
  for (int i = 0; i < c.blocks.heads_each; ++i) {
    const int head = first_head + i, group = head / (s.heads / s.kv_heads);
    barrier_wait(b.q_empty(), i % 2 ^ 1);
    barrier_expect(b.q_full(), kTileBytes<D>);
    for (int j = 0; j < D / 64; ++j)
      copy_box(tiles + j * kBox, &c.q, head * D + j * 64, first, b.q_full());
    for (int k0 = all.lo / kKeys * kKeys; k0 <= all.hi; k0 += kKeys, ring.next())
      for (const bool values : {false, true}) {
        const std::uint32_t to = tiles + (1 + 2 * ring.stage + values) * kTileBytes<D>,
                            full = b.full(values, ring.stage);
        barrier_wait(b.empty(values, ring.stage), ring.parity ^ 1);
        barrier_expect(full, kTileBytes<D>);
        for (int j = 0; j < D / 64; ++j)
          copy_box(to + j * kBox, values ? &c.v : &c.k, group * D + j * 64, k0, full);
      }
  }
}

using Scores = float[kKeys / 8][4];

// The rows of one thread: what they see, and their running softmax in units of log 2.
struct Rows {
  KeyRange seen[2], inner;  // inner: what all rows of the warp see
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
};

// Scores of the tile at k0 -> probabilities against the new maxima; fade: what the sums so far are
// to be scaled by.
[[maybe_unused]] __device__ inline void soften(Scores& s, Rows& r, int k0, float scale,
                                               float (&fade)[2]) {
  const int column = k0 + static_cast<int>(threadIdx.x) % 4 * 2;
  if (k0 < r.inner.lo || k0 + kKeys - 1 > r.inner.hi) {
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = column + j * 8 + e % 2;
        if (key < r.seen[e / 2].lo || key > r.seen[e / 2].hi) s[j][e] = -INFINITY;
      }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float best = -INFINITY;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) best = fmaxf(best, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
    best = fmaxf(r.top[h], max_of_four(best) * scale);
    const float base = best == -INFINITY ? 0.0f : best;
    fade[h] = fast_exp2(r.top[h] - base);
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int e = 2 * h; e < 2 * h + 2; ++e) {
        s[j][e] = fast_exp2(s[j][e] * scale - base);
        sum += s[j][e];
      }
    r.total[h] = r.total[h] * fade[h] + sum;
    r.top[h] = best;
  }
}

// One head.
template <int D>
__device__ void consume(const ForwardCall& c, std::uint32_t tiles, const AttentionBarriers& b,
                        int head, int first, const KeyRange& all, Ring& ring, int q_parity,
                        const Turns& turn) {
  const AttentionForward& a = c.a;
  const AttentionShape& s = a.shape;
  const int part = static_cast<int>(threadIdx.x) / 128 - 1, warp = threadIdx.x % 128 / 32,
            lane = threadIdx.x % 32;
  const int warp_row = first + part * 64 + warp * 16, row = warp_row + lane / 4;
  const bool speaker = threadIdx.x % 128 == 0;
  Rows r;
  r.seen[0] = row_range(s, row), r.seen[1] = row_range(s, row + 8);
  r.inner = warp_inner_range(r.seen);
  const float scale = s.scale * kLog2E;
  float out[D / 8][4] = {};
  Scores scores;
  std::uint32_t p[kKeys / 16][4];
  float fade[2];
  auto multiply_keys = [&](int stage) {
    warpgroup_begin();
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
      warpgroup_multiply_add<false, false>(
          scores, tile_descriptor<false>(tiles + k / 4 * kBox + part * 64 * 128 + k % 4 * 32, kBox),
          tile_descriptor<false>(
              tiles + (1 + 2 * stage) * kTileBytes<D> + k / 4 * kBox + k % 4 * 32, kBox),
          k > 0);
    warpgroup_commit();
  };
  auto add_values = [&](int stage) {
    warpgroup_begin();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k)
      warpgroup_multiply_left<true>(
          out, p[k],
          tile_descriptor<true>(tiles + (2 + 2 * stage) * kTileBytes<D> + k * 2048, kBox));
    warpgroup_commit();
  };
  auto pack = [&] {
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        p[k][i] = pack_bf16(scores[2 * k + i / 2][i % 2 * 2], scores[2 * k + i / 2][i % 2 * 2 + 1]);
  };
  const int begin = all.lo / kKeys * kKeys;
  barrier_wait(b.q_full(), q_parity);
  barrier_wait(b.full(false, ring.stage), ring.parity);
  multiply_keys(ring.stage);
  warpgroup_wait<0>();
  if (speaker) barrier_arrive(b.empty(false, ring.stage));
  soften(scores, r, begin, scale, fade);
  pack();
  for (int k0 = begin + kKeys; k0 <= all.hi; k0 += kKeys) {
    const Ring before = ring;
    ring.next();
    barrier_wait(b.full(false, ring.stage), ring.parity);
    barrier_wait(b.full(true, before.stage), before.parity);
    if constexpr (kTurns<D>) turn.take();
    multiply_keys(ring.stage);
    add_values(before.stage);
    if constexpr (kTurns<D>) turn.give();
    warpgroup_wait<1>();
    if (speaker) barrier_arrive(b.empty(false, ring.stage));
    soften(scores, r, k0, scale, fade);
    warpgroup_wait<0>();
    if (speaker) barrier_arrive(b.empty(true, before.stage));
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[j][e] *= fade[e / 2];
    pack();
  }
  if (speaker) barrier_arrive(b.q_empty());
  barrier_wait(b.full(true, ring.stage), ring.parity);
  add_values(ring.stage);
  warpgroup_wait<0>();
  if (speaker) barrier_arrive(b.empty(true, ring.stage));
  ring.next();
  float inverse[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float total = sum_of_four(r.total[h]);
    inverse[h] = total > 0 ? 1 / total : 0;
    if (a.lse && lane % 4 == 0 && row + 8 * h < s.queries)
      a.lse[static_cast<std::int64_t>(row + 8 * h) * s.heads + head] =
          total > 0 ? r.top[h] * (1 / kLog2E) + logf(total) : -INFINITY;
  }
  store_rows<D>(static_cast<__nv_bfloat16*>(a.o) + static_cast<std::int64_t>(head) * D, a.o_stride,
                warp_row, s.queries, out, inverse[0], inverse[1]);
}

// No query of the block sees a key.
template <int D>
__device__ void store_nothing(const AttentionForward& a, int head, int first) {
  const AttentionShape& s = a.shape;
  for (int i = static_cast<int>(threadIdx.x) - 128; i < kQueries * D; i += 256) {
    const int row = first + i / D;
    if (row >= s.queries) return;
    static_cast<__nv_bfloat16*>(a.o)[row * a.o_stride + head * D + i % D] =
        __float2bfloat16_rn(0.0f);
    if (a.lse && i % D == 0) a.lse[static_cast<std::int64_t>(row) * s.heads + head] = -INFINITY;
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ ForwardCall c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char shared[];
  __shared__ std::uint64_t barrier_memory[AttentionBarriers::kCount];
  const std::uint32_t tiles = (shared_address(shared) + 1023) & ~1023u;
  const AttentionBarriers b{shared_address(barrier_memory)};
  const auto [first_head, first] = row_place(c.blocks, c.a.shape);
  const KeyRange all = block_range<kQueries>(c.a.shape, first);
  if (threadIdx.x == 0) {
    barrier_init(b.q_full(), 1);
    barrier_init(b.q_empty(), 2);
    for (int i = 0; i < 2 * kStages; ++i) {
      barrier_init(b.full(i / kStages, i % kStages), 1);
      barrier_init(b.empty(i / kStages, i % kStages), 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<24>();
    if (threadIdx.x == 0 && all.lo <= all.hi) produce<D>(c, tiles, b, first_head, first, all);
  } else {
    take_registers<240>();
    Ring ring;
    const Turns turn{static_cast<int>(threadIdx.x) / 128 - 1};
    if constexpr (kTurns<D>) turn.begin();
    for (int i = 0; i < c.blocks.heads_each; ++i) {
      if (all.lo <= all.hi)
        consume<D>(c, tiles, b, first_head + i, first, all, ring, i % 2, turn);
      else
        store_nothing<D>(c.a, first_head + i, first);
    }
  }
#endif
}

template <int D>
void launch(const AttentionForward& a, cudaStream_t stream) {
  static const bool allowed = (allow_shared(forward_kernel<D>, kSharedBytes<D>), true);
  static_cast<void>(allowed);
  const AttentionShape& s = a.shape;
  ForwardCall c;
  c.a = a;
  c.q = bf16_boxes(a.q, s.heads * D, s.queries, a.q_stride, kQueries);
  c.k = bf16_boxes(a.k, s.kv_heads * D, s.keys, a.k_stride, kKeys);
  c.v = bf16_boxes(a.v, s.kv_heads * D, s.keys, a.v_stride, kKeys);
  c.blocks = row_blocks(s);
  forward_kernel<D>
      <<<static_cast<unsigned>(c.blocks.count), kThreads, kSharedBytes<D>, stream>>>(c);
  check_launch("attention_forward_wgmma");
}

}  // namespace

bool attention_forward_wgmma(const AttentionForward& a, cudaStream_t stream) {
  if (device_limits().capability != 90 || a.shape.queries < 64) return false;
  if (!aligned_rows(a.q, a.q_stride) || !aligned_rows(a.k, a.k_stride) ||
      !aligned_rows(a.v, a.v_stride))
    return false;
  a.shape.d == 64 ? launch<64>(a, stream) : launch<128>(a, stream);
  return true;
}

}  // namespace supersonic::cuda
