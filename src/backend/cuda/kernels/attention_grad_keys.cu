// dk and dv of attention on Hopper, the second pass of attention_grad_wgmma.cu: 128 keys of a kv
// head stand still, on transposed scores, and tiles of 64 queries of each head of the group go by.
// Two warpgroups own 64 keys each; of the third, one warp brings the tiles by the copy engine, two
// what is known of each query. Probabilities and their gradients go from the sums of one product
// into the left operand of the next without leaving their registers; the next tile's first product
// is queued behind them. Which tiles of queries see the block's keys, and whether all of a tile's
// see all of them, was found out once for all blocks. Limit: the tensor cores, and beside them
// shared memory, which products of 64 columns read at its full rate.
#include "backend/cuda/kernels/attention_grad_wgmma.cuh"

namespace supersonic::cuda {

// Barriers: arrival of the keys and values; arrival and release of each stage of queries. Tiles are
// numbered; tile n lies in stage n % kStages.
struct KeyBarriers {
  static constexpr int kStages = 4;  // a power of two
  std::uint32_t base;
  __device__ std::uint32_t rows_full() const { return base; }
  __device__ std::uint32_t full(unsigned stage) const { return base + 8 + stage * 16; }
  __device__ std::uint32_t empty(unsigned stage) const { return full(stage) + 8; }
  __device__ void wait_full(unsigned tile) const {
    barrier_wait(full(tile % kStages), static_cast<int>(tile / kStages % 2));
  }
  __device__ void wait_empty(unsigned tile) const {
    barrier_wait(empty(tile % kStages), static_cast<int>(tile / kStages % 2 ^ 1));
  }
};

namespace {

constexpr int kQueries = kRangeQueries, kStages = KeyBarriers::kStages;

// Of the queries of a tile; lse in units of log 2. The ranges are there where they are looked at.
struct QueryFacts {
  float lse[kQueries], delta[kQueries];
  int lo[kQueries], hi[kQueries];
};
enum TileKind : int { kEnd, kSeenInPart, kSeenWhole };

template <int D>
struct KeyPass {
  static constexpr int row_bytes = kRows * D * 2, tile_bytes = kQueries * D * 2;
  static constexpr int facts_at = 2 * row_bytes + kStages * 2 * tile_bytes;
  static constexpr int shared_bytes =
      facts_at + kStages * static_cast<int>(sizeof(QueryFacts)) + 1024;
};

// The warp's rows of a part in fp32.
template <int D>
__device__ void store_part(float* head, std::int64_t stride, int first, int end,
                           const float (&sum)[D / 8][4], float factor) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane / 4 + 8 * half;
    if (row >= end) continue;
    float* to = head + row * stride + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
      *reinterpret_cast<float2*>(to + j * 8) =
          make_float2(sum[j][2 * half] * factor, sum[j][2 * half + 1] * factor);
  }
}

// dk and dv: the parts' sums, in their order.
__global__ void __launch_bounds__(256)
    add_parts_kernel(const __grid_constant__ AttentionBackward a, const float* parts, int count) {
  const std::int64_t row_size = static_cast<std::int64_t>(a.shape.kv_heads) * a.shape.d,
                     size = a.shape.keys * row_size;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= size) return;
  for (int which = 0; which < 2; ++which) {
    void* out = which ? a.dv : a.dk;
    if (!out) continue;
    float sum = 0;
    for (int z = 0; z < count; ++z) sum += parts[(2 * z + which) * size + i];
    store_float(out, a.type, i / row_size * (which ? a.dv_stride : a.dk_stride) + i % row_size,
                sum);
  }
}

// Scores of two keys to probabilities; of the two queries from `column` on in each group of eight.
[[maybe_unused]] __device__ inline void soften(float (&p)[kQueries / 8][4], const QueryFacts& facts,
                                               TileKind kind, int first, float scale) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int j = 0; j < kQueries / 8; ++j) {
    const float2 lse = *reinterpret_cast<const float2*>(facts.lse + j * 8 + column);
#pragma unroll
    for (int e = 0; e < 4; ++e) p[j][e] = fast_exp2(p[j][e] * scale - (e % 2 ? lse.y : lse.x));
  }
  if (kind == kSeenWhole) return;
  const int thread = static_cast<int>(threadIdx.x) - 128,
            key = first + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int j = 0; j < kQueries / 8; ++j) {
    const int2 lo = *reinterpret_cast<const int2*>(facts.lo + j * 8 + column),
               hi = *reinterpret_cast<const int2*>(facts.hi + j * 8 + column);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (key + e / 2 * 8 < (e % 2 ? lo.y : lo.x) || key + e / 2 * 8 > (e % 2 ? hi.y : hi.x))
        p[j][e] = 0;
  }
}

template <int D>
__device__ void consume_queries(const BackwardCall& c, std::uint32_t tiles, const char* memory,
                                const TileKind* kinds, const KeyBarriers& b, int group, int first) {
  using P = KeyPass<D>;
  const AttentionBackward& a = c.a;
  const AttentionShape& s = a.shape;
  const int part = static_cast<int>(threadIdx.x) / 128 - 1,
            warp_row = first + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + part * 64;
  const int lane = threadIdx.x % 32;
  const bool speaker = threadIdx.x % 128 == 0;
  const float scale = s.scale * kLog2E;
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  barrier_wait(b.rows_full(), 0);
  for (unsigned tile = 0;; ++tile) {
    const unsigned stage = tile % kStages;
    b.wait_full(tile);
    const TileKind kind = kinds[stage];
    if (kind == kEnd) break;
    const std::uint32_t q = tiles + 2 * P::row_bytes + stage * 2 * P::tile_bytes,
                        d_o = q + P::tile_bytes;
    const QueryFacts& facts = reinterpret_cast<const QueryFacts*>(memory + P::facts_at)[stage];
    float p[kQueries / 8][4], g[kQueries / 8][4];
    std::uint32_t weights[kQueries / 16][4], ds[kQueries / 16][4];
    multiply_rows<D, kQueries>(p, tiles + part * 64 * 128, kRows, q);
    warpgroup_wait<1>();  // the last tile's sums
    if (speaker && tile > 0) barrier_arrive(b.empty((tile - 1) % kStages));
    multiply_rows<D, kQueries>(g, tiles + P::row_bytes + part * 64 * 128, kRows, d_o);
    warpgroup_wait<1>();
    soften(p, facts, kind, first, scale);
    pack_rows<kQueries>(weights, p);
    add_rows<D, kQueries>(dv, weights, d_o);
    warpgroup_wait<1>();
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      const float2 delta = *reinterpret_cast<const float2*>(facts.delta + j * 8 + lane % 4 * 2);
#pragma unroll
      for (int e = 0; e < 4; ++e) p[j][e] *= g[j][e] - (e % 2 ? delta.y : delta.x);
    }
    pack_rows<kQueries>(ds, p);
    warpgroup_wait<0>();  // registers do not suffice for weights, ds and the next tile's scores
    add_rows<D, kQueries>(dk, ds, q);
  }
  warpgroup_wait<0>();
  const std::int64_t kv_head = static_cast<std::int64_t>(group) * D;
  if (c.parts) {
    const std::int64_t row_size = static_cast<std::int64_t>(s.kv_heads) * D,
                       size = s.keys * row_size;
    float* sums = c.parts + 2 * blockIdx.z * size + kv_head;
    store_part<D>(sums, row_size, warp_row, s.keys, dk, s.scale);
    store_part<D>(sums + size, row_size, warp_row, s.keys, dv, 1);
    return;
  }
  if (a.dk)
    store_rows<D>(static_cast<__nv_bfloat16*>(a.dk) + kv_head, a.dk_stride, warp_row, s.keys, dk,
                  s.scale, s.scale);
  if (a.dv)
    store_rows<D>(static_cast<__nv_bfloat16*>(a.dv) + kv_head, a.dv_stride, warp_row, s.keys, dv, 1,
                  1);
}

// visit(head, first query, kind) of each tile of queries that sees one of the block's keys, head by
// head, so that blocks beside each other read the same tiles at about the same time; a whole warp.
template <class Visit>
__device__ void visit_tiles(const BackwardCall& c, int first_head, int last_head, int first,
                            const Visit& visit) {
  const int count = (c.a.shape.queries + kQueries - 1) / kQueries;
  for (int head = first_head; head < last_head; ++head)
    for (int t0 = 0; t0 < count; t0 += 32) {
      const int tile = t0 + static_cast<int>(threadIdx.x) % 32;
      const TileRange r = tile < count ? c.ranges[tile] : TileRange{kNoKey, -1, kNoKey, -1};
      unsigned seen = __ballot_sync(0xffffffffu, r.lo < first + kRows && r.hi >= first);
      const unsigned whole =
          __ballot_sync(0xffffffffu, r.inner_lo <= first && r.inner_hi >= first + kRows - 1);
      for (; seen; seen &= seen - 1) {
        const int i = __ffs(static_cast<int>(seen)) - 1;
        visit(head, (t0 + i) * kQueries, whole >> i & 1 ? kSeenWhole : kSeenInPart);
      }
    }
}

// The warp that starts the copies.
template <int D>
__device__ void bring_queries(const BackwardCall& c, std::uint32_t tiles, const KeyBarriers& b,
                              int first_head, int last_head, int first) {
  using P = KeyPass<D>;
  const int group = blockIdx.x;
  const bool speaker = threadIdx.x == 0;
  if (speaker) {
    barrier_expect(b.rows_full(), 2 * P::row_bytes);
    copy_tile<D>(tiles, &c.k, group, first, kRows, b.rows_full());
    copy_tile<D>(tiles + P::row_bytes, &c.v, group, first, kRows, b.rows_full());
  }
  unsigned number = 0;
  visit_tiles(c, first_head, last_head, first, [&](int head, int q0, TileKind) {
    if (speaker) {
      const unsigned stage = number % kStages;
      const std::uint32_t full = b.full(stage),
                          q = tiles + 2 * P::row_bytes + stage * 2 * P::tile_bytes;
      b.wait_empty(number);
      barrier_expect(full, 2 * P::tile_bytes);
      copy_tile<D>(q, &c.q, head, q0, kQueries, full);
      copy_tile<D>(q + P::tile_bytes, &c.d_o, head, q0, kQueries, full);
    }
    ++number;
  });
  b.wait_empty(number);
  if (speaker) barrier_arrive(b.full(number % kStages));
}

// Two warps write what is known of the queries, a thread of each, and after the last tile that it
// was the last.
[[maybe_unused]] __device__ void describe_queries(const BackwardCall& c, QueryFacts* stages,
                                                  TileKind* kinds, const KeyBarriers& b,
                                                  int first_head, int last_head, int first) {
  const AttentionShape& s = c.a.shape;
  const int i = static_cast<int>(threadIdx.x) - 32;
  const bool speaker = i % 32 == 0;
  unsigned number = 0;
  visit_tiles(c, first_head, last_head, first, [&](int head, int q0, TileKind kind) {
    const bool in_part = kind == kSeenInPart;
    const KeyRange seen = in_part ? row_range(s, q0 + i) : KeyRange{0, 0};
    float lse = 0, delta = 0;
    if (seen.lo <= seen.hi) {
      const std::int64_t at = static_cast<std::int64_t>(q0 + i) * s.heads + head;
      lse = c.a.lse[at] * kLog2E;
      delta = c.delta[at];
    }
    b.wait_empty(number);
    const unsigned stage = number % kStages;
    QueryFacts& facts = stages[stage];
    facts.lse[i] = lse, facts.delta[i] = delta;
    if (in_part) facts.lo[i] = seen.lo, facts.hi[i] = seen.hi;
    if (speaker) kinds[stage] = kind;
    __syncwarp();
    if (speaker) barrier_arrive(b.full(stage));
    ++number;
  });
  b.wait_empty(number);
  if (speaker) kinds[number % kStages] = kEnd;
  if (speaker) barrier_arrive(b.full(number % kStages));
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1) key_kernel(const __grid_constant__ BackwardCall c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char shared[];
  __shared__ std::uint64_t barrier_memory[1 + 2 * kStages];
  __shared__ TileKind kinds[kStages];
  const std::uint32_t start = shared_address(shared), tiles = (start + 1023) & ~1023u;
  char* memory = shared + (tiles - start);
  const KeyBarriers b{shared_address(barrier_memory)};
  const int group = blockIdx.x, first = blockIdx.y * kRows;
  if (threadIdx.x == 0) {
    barrier_init(b.rows_full(), 1);
    for (int i = 0; i < kStages; ++i) {
      barrier_init(b.full(i), 3);
      barrier_init(b.empty(i), 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    const int share = c.a.shape.heads / c.a.shape.kv_heads, begin = group * share;
    const int first_head = begin + static_cast<int>(blockIdx.z * share / gridDim.z),
              last_head = begin + static_cast<int>((blockIdx.z + 1) * share / gridDim.z);
    if (threadIdx.x < 32)
      bring_queries<D>(c, tiles, b, first_head, last_head, first);
    else if (threadIdx.x < 96)
      describe_queries(c, reinterpret_cast<QueryFacts*>(memory + KeyPass<D>::facts_at), kinds, b,
                       first_head, last_head, first);
  } else {
    take_registers<232>();
    consume_queries<D>(c, tiles, memory, kinds, b, group, first);
  }
#endif
}

template <int D>
void launch(BackwardCall& c, cudaStream_t stream) {
  using P = KeyPass<D>;
  static const bool allowed = (allow_shared(key_kernel<D>, P::shared_bytes), true);
  static_cast<void>(allowed);
  const AttentionBackward& a = c.a;
  const AttentionShape& s = a.shape;
  const int count = attention_key_parts(s);
  float* const parts = c.parts;
  if (count == 1) c.parts = nullptr;
  c.q = bf16_boxes(a.q, s.heads * D, s.queries, a.q_stride, kQueries);
  c.d_o = bf16_boxes(a.d_o, s.heads * D, s.queries, a.do_stride, kQueries);
  c.k = bf16_boxes(a.k, s.kv_heads * D, s.keys, a.k_stride, kRows);
  c.v = bf16_boxes(a.v, s.kv_heads * D, s.keys, a.v_stride, kRows);
  const dim3 grid(static_cast<unsigned>(s.kv_heads), static_cast<unsigned>(ceil_div(s.keys, kRows)),
                  static_cast<unsigned>(count));
  key_kernel<D><<<grid, kThreads, P::shared_bytes, stream>>>(c);
  check_launch("attention_backward_wgmma");
  if (count == 1) return;
  const std::int64_t size = static_cast<std::int64_t>(s.keys) * s.kv_heads * D;
  add_parts_kernel<<<static_cast<unsigned>(ceil_div(size, 256)), 256, 0, stream>>>(a, parts, count);
  check_launch("attention_add_parts");
}

}  // namespace

// Parts that the heads of a group are split into where there are few blocks of keys. One and a half
// for each multiprocessor are enough: the long ones start first, and short ones fill up.
int attention_key_parts(const AttentionShape& s) {
  const std::int64_t blocks = ceil_div(s.keys, kRows) * s.kv_heads, share = s.heads / s.kv_heads,
                     device = device_limits().multiprocessors;
  if (2 * blocks >= 3 * device) return 1;
  const std::int64_t wanted = ceil_div(3 * device, blocks);
  return static_cast<int>(wanted < share ? wanted : share);
}

void attention_keys_wgmma(BackwardCall& c, cudaStream_t stream) {
  c.a.shape.d == 64 ? launch<64>(c, stream) : launch<128>(c, stream);
}

}  // namespace supersonic::cuda
