// Attention backward on Hopper for bf16 and head sizes 64 and 128, in two passes: dq here, with 128
// queries of a head standing still, then dk and dv (attention_grad_keys.cu). Two warpgroups own 64
// rows each; the third's first thread brings tiles of 128 keys and values by the copy engine. The
// gradients of a tile's scores go from registers into the product with its keys; behind it the next
// tile's two products are already queued, so that the tensor cores wait for neither the other
// warpgroup nor the exponentials. A block takes several heads of the same queries: the next one's
// tiles arrive while the last one's sums leave. The sum of o * do of each row is made on the way
// and left for the second pass. Limit: the tensor cores.
#include "backend/cuda/kernels/attention_grad_wgmma.cuh"

namespace supersonic::cuda {

// Barriers: arrival and release of the queries, and of each stage of keys and values.
struct QueryBarriers {
  std::uint32_t base;
  __device__ std::uint32_t rows_full() const { return base; }
  __device__ std::uint32_t rows_empty() const { return base + 8; }
  __device__ std::uint32_t full(int stage) const { return base + 16 + stage * 16; }
  __device__ std::uint32_t empty(int stage) const { return full(stage) + 8; }
};

namespace {

template <int D>
struct QueryPass {
  static constexpr int stages = 2, keys = 128, row_bytes = kRows * D * 2, tile_bytes = keys * D * 2;
  static constexpr int shared_bytes = 2 * row_bytes + stages * 2 * tile_bytes + 1024;
  using Ring = StageRing<stages>;
};

// One warp for each kRangeQueries queries.
__global__ void __launch_bounds__(128)
    range_kernel(const __grid_constant__ AttentionShape s, TileRange* ranges) {
  const int tile = static_cast<int>(blockIdx.x * 4 + threadIdx.x / 32),
            first = tile * kRangeQueries;
  if (first >= s.queries) return;
  const KeyRange all = block_range<kRangeQueries>(s, first);
  int lo = 0, hi = kNoKey;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < kRangeQueries; i += 32) {
    const KeyRange r = row_range(s, first + i);
    lo = max(lo, r.lo), hi = min(hi, r.hi);
  }
  for (int step = 16; step > 0; step /= 2) {
    lo = max(lo, __shfl_xor_sync(0xffffffffu, lo, step));
    hi = min(hi, __shfl_xor_sync(0xffffffffu, hi, step));
  }
  if (threadIdx.x % 32 == 0) ranges[tile] = {all.lo, all.hi, lo, hi};
}

// The sum of o * do over a row of a head, in each of the four lanes that share it.
template <int D>
[[maybe_unused]] __device__ float row_delta(const AttentionBackward& a, int row, int head) {
  float sum = 0;
  if (row < a.shape.queries) {
    const int part = static_cast<int>(threadIdx.x) % 4 * 8;
    const auto* o = static_cast<const __nv_bfloat16*>(a.o) + row * a.o_stride + head * D + part;
    const auto* d_o =
        static_cast<const __nv_bfloat16*>(a.d_o) + row * a.do_stride + head * D + part;
#pragma unroll
    for (int i = 0; i < D; i += 32) {
      float x[8], y[8];
      unpack8(*reinterpret_cast<const uint4*>(o + i), x);
      unpack8(*reinterpret_cast<const uint4*>(d_o + i), y);
#pragma unroll
      for (int e = 0; e < 8; ++e) sum += x[e] * y[e];
    }
  }
  return sum_of_four(sum);
}

// One head.
template <int D>
__device__ void consume_keys(const BackwardCall& c, std::uint32_t tiles, const QueryBarriers& b,
                             int head, int first, const KeyRange& all,
                             typename QueryPass<D>::Ring& ring, int rows_parity,
                             const Turns& turn) {
  using P = QueryPass<D>;
  const AttentionBackward& a = c.a;
  const AttentionShape& s = a.shape;
  const int part = static_cast<int>(threadIdx.x) / 128 - 1,
            warp_row = first + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + part * 64;
  const int lane = threadIdx.x % 32, row = warp_row + lane / 4;
  const bool speaker = threadIdx.x % 128 == 0;
  const KeyRange seen[2] = {row_range(s, row), row_range(s, row + 8)};
  const KeyRange inner = warp_inner_range(seen);
  float lse[2], delta[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const std::int64_t at = static_cast<std::int64_t>(row + 8 * h) * s.heads + head;
    const bool valid = row + 8 * h < s.queries;
    lse[h] = valid ? a.lse[at] * kLog2E : 0;
    delta[h] = row_delta<D>(a, row + 8 * h, head);
    if (valid && lane % 4 == 0) c.delta[at] = delta[h];
  }
  const float scale = s.scale * kLog2E;
  float dq[D / 8][4] = {};
  barrier_wait(b.rows_full(), rows_parity);
  turn.take();
  int before = -1;  // the stage whose product may still be under way
  for (int k0 = all.lo / P::keys * P::keys; k0 <= all.hi; k0 += P::keys, ring.next()) {
    const std::uint32_t keys = tiles + 2 * P::row_bytes + ring.stage * 2 * P::tile_bytes;
    float p[P::keys / 8][4], g[P::keys / 8][4];
    barrier_wait(b.full(ring.stage), ring.parity);
    multiply_rows<D, P::keys>(p, tiles + part * 64 * 128, kRows, keys);
    warpgroup_wait<1>();
    if (speaker && before >= 0) barrier_arrive(b.empty(before));
    multiply_rows<D, P::keys>(g, tiles + P::row_bytes + part * 64 * 128, kRows,
                              keys + P::tile_bytes);
    turn.give();
    before = ring.stage;
    warpgroup_wait<1>();
    if (k0 >= inner.lo && k0 + P::keys - 1 <= inner.hi) {
#pragma unroll
      for (int j = 0; j < P::keys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) p[j][e] = fast_exp2(p[j][e] * scale - lse[e / 2]);
    } else {
#pragma unroll
      for (int j = 0; j < P::keys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = k0 + j * 8 + lane % 4 * 2 + e % 2;
          p[j][e] = key >= seen[e / 2].lo && key <= seen[e / 2].hi
                        ? fast_exp2(p[j][e] * scale - lse[e / 2])
                        : 0.0f;
        }
    }
    warpgroup_wait<0>();
#pragma unroll
    for (int j = 0; j < P::keys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) p[j][e] *= g[j][e] - delta[e / 2];
    std::uint32_t ds[P::keys / 16][4];
    pack_rows<P::keys>(ds, p);
    turn.take();
    add_rows<D, P::keys>(dq, ds, keys);
  }
  turn.give();
  if (speaker) barrier_arrive(b.rows_empty());
  warpgroup_wait<0>();
  if (speaker) barrier_arrive(b.empty(before));
  store_rows<D>(static_cast<__nv_bfloat16*>(a.dq) + static_cast<std::int64_t>(head) * D,
                a.dq_stride, warp_row, s.queries, dq, s.scale, s.scale);
}

// No query of the block sees a key. Their deltas are not asked for.
template <int D>
__device__ void store_no_gradient(const AttentionBackward& a, int head, int first) {
  for (int i = static_cast<int>(threadIdx.x) - 128; i < kRows * D; i += 256) {
    const int row = first + i / D;
    if (row >= a.shape.queries) return;
    static_cast<__nv_bfloat16*>(a.dq)[row * a.dq_stride + head * D + i % D] =
        __float2bfloat16_rn(0.0f);
  }
}

// One thread.
template <int D>
__device__ void produce_keys(const BackwardCall& c, std::uint32_t tiles, const QueryBarriers& b,
                             int first_head, int first, const KeyRange& all) {
  using P = QueryPass<D>;
  typename P::Ring ring;
  const int share = c.a.shape.heads / c.a.shape.kv_heads, begin = all.lo / P::keys * P::keys;
  for (int i = 0; i < c.blocks.heads_each; ++i) {
    const int head = first_head + i, group = head / share;
    for (int k0 = begin; k0 <= all.hi; k0 += P::keys, ring.next()) {
      const std::uint32_t full = b.full(ring.stage),
                          keys = tiles + 2 * P::row_bytes + ring.stage * 2 * P::tile_bytes;
      barrier_wait(b.empty(ring.stage), ring.parity ^ 1);
      barrier_expect(full, 2 * P::tile_bytes);
      copy_tile<D>(keys, &c.k, group, k0, P::keys, full);
      copy_tile<D>(keys + P::tile_bytes, &c.v, group, k0, P::keys, full);
      if (k0 > begin) continue;
      barrier_wait(b.rows_empty(), i % 2 ^ 1);
      barrier_expect(b.rows_full(), 2 * P::row_bytes);
      copy_tile<D>(tiles, &c.q, head, first, kRows, b.rows_full());
      copy_tile<D>(tiles + P::row_bytes, &c.d_o, head, first, kRows, b.rows_full());
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    query_kernel(const __grid_constant__ BackwardCall c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using P = QueryPass<D>;
  extern __shared__ char shared[];
  __shared__ std::uint64_t barrier_memory[2 + 2 * P::stages];
  const std::uint32_t tiles = (shared_address(shared) + 1023) & ~1023u;
  const QueryBarriers b{shared_address(barrier_memory)};
  const auto [first_head, first] = row_place(c.blocks, c.a.shape);
  const KeyRange all = block_range<kRows>(c.a.shape, first);
  if (threadIdx.x == 0) {
    barrier_init(b.rows_full(), 1);
    barrier_init(b.rows_empty(), 2);
    for (int i = 0; i < P::stages; ++i) {
      barrier_init(b.full(i), 1);
      barrier_init(b.empty(i), 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<24>();
    if (threadIdx.x == 0 && all.lo <= all.hi) produce_keys<D>(c, tiles, b, first_head, first, all);
  } else {
    take_registers<240>();
    typename P::Ring ring;
    const Turns turn{static_cast<int>(threadIdx.x) / 128 - 1};
    turn.begin();
    for (int i = 0; i < c.blocks.heads_each; ++i) {
      if (all.lo <= all.hi)
        consume_keys<D>(c, tiles, b, first_head + i, first, all, ring, i % 2, turn);
      else
        store_no_gradient<D>(c.a, first_head + i, first);
    }
  }
#endif
}

bool for_warpgroups(const AttentionBackward& a) {
  return device_limits().capability == 90 && a.shape.queries >= 64 && a.shape.keys >= 64 &&
         attention_tensor_cores(a.shape, a.type, a.type);
}

template <int D>
void queries_pass(BackwardCall& c, cudaStream_t stream) {
  using P = QueryPass<D>;
  static const bool allowed = (allow_shared(query_kernel<D>, P::shared_bytes), true);
  static_cast<void>(allowed);
  const AttentionBackward& a = c.a;
  const AttentionShape& s = a.shape;
  c.blocks = row_blocks(s);
  c.q = bf16_boxes(a.q, s.heads * D, s.queries, a.q_stride, kRows);
  c.d_o = bf16_boxes(a.d_o, s.heads * D, s.queries, a.do_stride, kRows);
  c.k = bf16_boxes(a.k, s.kv_heads * D, s.keys, a.k_stride, P::keys);
  c.v = bf16_boxes(a.v, s.kv_heads * D, s.keys, a.v_stride, P::keys);
  query_kernel<D><<<static_cast<unsigned>(c.blocks.count), kThreads, P::shared_bytes, stream>>>(c);
  check_launch("attention_backward_wgmma");
}

std::size_t range_bytes(const AttentionShape& s) {
  const auto count = static_cast<std::size_t>(ceil_div(s.queries, kRangeQueries));
  return (count * sizeof(TileRange) + 255) / 256 * 256;
}

}  // namespace

std::size_t attention_wgmma_bytes(const AttentionBackward& a) {
  if (!for_warpgroups(a)) return 0;
  const AttentionShape& s = a.shape;
  const std::int64_t parts = attention_key_parts(s);
  const std::int64_t sums = parts > 1 ? parts * 2 * s.keys * s.kv_heads * s.d : 0;
  return range_bytes(s) + static_cast<std::size_t>(sums) * 4;
}

bool attention_backward_wgmma(const AttentionBackward& a, float* delta, void* workspace,
                              cudaStream_t stream) {
  if (!for_warpgroups(a)) return false;
  if (!aligned_rows(a.q, a.q_stride) || !aligned_rows(a.k, a.k_stride) ||
      !aligned_rows(a.v, a.v_stride) || !aligned_rows(a.o, a.o_stride) ||
      !aligned_rows(a.d_o, a.do_stride))
    return false;
  BackwardCall c;
  c.a = a;
  c.delta = delta;
  auto* ranges = static_cast<TileRange*>(workspace);
  c.ranges = ranges;
  c.parts = reinterpret_cast<float*>(static_cast<char*>(workspace) + range_bytes(a.shape));
  if (a.dq)
    a.shape.d == 64 ? queries_pass<64>(c, stream) : queries_pass<128>(c, stream);
  else
    attention_delta(a, delta, stream);
  if (!a.dk && !a.dv) return true;
  range_kernel<<<static_cast<unsigned>(ceil_div(a.shape.queries, 4 * kRangeQueries)), 128, 0,
                 stream>>>(a.shape, ranges);
  check_launch("attention_ranges");
  attention_keys_wgmma(c, stream);
  return true;
}

}  // namespace supersonic::cuda
