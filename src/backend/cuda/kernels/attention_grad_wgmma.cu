// Attention backward on Hopper for bf16 and head sizes 64 and 128, in the two passes of
// attention_grad_bf16.cu: dq with 128 queries of a head standing still, dk and dv with 128 keys of
// a kv head, on transposed scores. Two warpgroups own 64 rows each; the third brings the other
// side's tiles by the copy engine and, for dk and dv, the facts of each query. Probabilities and
// their gradients go from the sums of one product into the left operand of the next without leaving
// their registers. Limit: the tensor cores.
#include "backend/cuda/kernels/attention_tiles.cuh"
#include "backend/cuda/kernels/wgmma_products.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kRows = 128, kThreads = 384, kStages = 2;

struct BackwardCall {
  AttentionBackward a;
  const float* delta;
  float* parts;  // dk and dv of each part of the heads: (parts, 2, S, kv_heads, D); null: one part,
                 // straight to its place
  CUtensorMap q, k, v, d_o;
};

// A tile of `rows` rows of one head: D / 64 boxes.
template <int D>
__device__ void copy_tile(std::uint32_t to, const CUtensorMap* map, int head, int first, int rows,
                          std::uint32_t barrier) {
  for (int i = 0; i < D / 64; ++i)
    copy_box(to + i * rows * 128, map, head * D + i * 64, first, barrier);
}

// out (64, columns) = rows of A * rows of B^T over D. a: the warpgroup's first row in its tile of
// `a_rows`.
template <int D, int columns>
__device__ void multiply_rows(float (&out)[columns / 8][4], std::uint32_t a, int a_rows,
                              std::uint32_t b) {
  warpgroup_begin();
#pragma unroll
  for (int k = 0; k < D / 16; ++k)
    warpgroup_multiply_add<false, false>(
        out, tile_descriptor<false>(a + k / 4 * a_rows * 128 + k % 4 * 32, 0),
        tile_descriptor<false>(b + k / 4 * columns * 128 + k % 4 * 32, 0), k > 0);
  warpgroup_commit();
}

// sum (64, D) += p (64, depth) * B (depth, D)
template <int D, int depth>
__device__ void add_rows(float (&sum)[D / 8][4], const std::uint32_t (&p)[depth / 16][4],
                         std::uint32_t b) {
#pragma unroll
  for (int k = 0; k < depth / 16; ++k)
    warpgroup_multiply_left<true>(sum, p[k], tile_descriptor<true>(b + k * 2048, depth * 128));
}

template <int depth>
__device__ void pack_rows(std::uint32_t (&p)[depth / 16][4], const float (&s)[depth / 8][4]) {
#pragma unroll
  for (int k = 0; k < depth / 16; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      p[k][i] = pack_bf16(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
}

// ---- dq

template <int D>
struct QueryPass {
  static constexpr int keys = 128, row_bytes = kRows * D * 2, tile_bytes = keys * D * 2;
  static constexpr int shared_bytes = 2 * row_bytes + kStages * 2 * tile_bytes + 1024;
};

template <int D>
__device__ void consume_keys(const BackwardCall& c, std::uint32_t tiles, std::uint32_t barriers,
                             int head, int first, const KeyRange& all) {
  using P = QueryPass<D>;
  const AttentionBackward& a = c.a;
  const AttentionShape& s = a.shape;
  const int part = static_cast<int>(threadIdx.x) / 128 - 1,
            warp_row = first + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + part * 64;
  const int lane = threadIdx.x % 32, row = warp_row + lane / 4;
  const bool speaker = threadIdx.x % 128 == 0;
  const KeyRange seen[2] = {row_range(s, row), row_range(s, row + 8)};
  float lse[2], delta[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const std::int64_t at = static_cast<std::int64_t>(row + 8 * h) * s.heads + head;
    const bool valid = row + 8 * h < s.queries;
    lse[h] = valid ? a.lse[at] * kLog2E : 0;
    delta[h] = valid ? c.delta[at] : 0;
  }
  const float scale = s.scale * kLog2E;
  float dq[D / 8][4] = {};
  barrier_wait(barriers, 0);
  int stage = 0, parity = 0;
  for (int k0 = all.lo / P::keys * P::keys; k0 <= all.hi; k0 += P::keys) {
    const std::uint32_t full = barriers + 8 + stage * 16,
                        keys = tiles + 2 * P::row_bytes + stage * 2 * P::tile_bytes;
    float p[P::keys / 8][4], g[P::keys / 8][4];
    barrier_wait(full, parity);
    multiply_rows<D, P::keys>(p, tiles + part * 64 * 128, kRows, keys);
    multiply_rows<D, P::keys>(g, tiles + P::row_bytes + part * 64 * 128, kRows,
                              keys + P::tile_bytes);
    warpgroup_wait<1>();
#pragma unroll
    for (int j = 0; j < P::keys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = k0 + j * 8 + lane % 4 * 2 + e % 2;
        p[j][e] = key >= seen[e / 2].lo && key <= seen[e / 2].hi
                      ? fast_exp2(p[j][e] * scale - lse[e / 2])
                      : 0.0f;
      }
    warpgroup_wait<0>();
#pragma unroll
    for (int j = 0; j < P::keys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) p[j][e] *= g[j][e] - delta[e / 2];
    std::uint32_t ds[P::keys / 16][4];
    pack_rows<P::keys>(ds, p);
    warpgroup_begin();
    add_rows<D, P::keys>(dq, ds, keys);
    warpgroup_commit();
    warpgroup_wait<0>();
    if (speaker) barrier_arrive(full + 8);
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
  store_rows<D>(static_cast<__nv_bfloat16*>(a.dq) + static_cast<std::int64_t>(head) * D,
                a.dq_stride, warp_row, s.queries, dq, s.scale, s.scale);
}

template <int D>
__device__ void produce_keys(const BackwardCall& c, std::uint32_t tiles, std::uint32_t barriers,
                             int head, int group, int first, const KeyRange& all) {
  using P = QueryPass<D>;
  barrier_expect(barriers, 2 * P::row_bytes);
  copy_tile<D>(tiles, &c.q, head, first, kRows, barriers);
  copy_tile<D>(tiles + P::row_bytes, &c.d_o, head, first, kRows, barriers);
  int stage = 0, parity = 0;
  for (int k0 = all.lo / P::keys * P::keys; k0 <= all.hi; k0 += P::keys) {
    const std::uint32_t full = barriers + 8 + stage * 16,
                        keys = tiles + 2 * P::row_bytes + stage * 2 * P::tile_bytes;
    barrier_wait(full + 8, parity ^ 1);
    barrier_expect(full, 2 * P::tile_bytes);
    copy_tile<D>(keys, &c.k, group, k0, P::keys, full);
    copy_tile<D>(keys + P::tile_bytes, &c.v, group, k0, P::keys, full);
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    query_kernel(const __grid_constant__ BackwardCall c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char shared[];
  __shared__ std::uint64_t barrier_memory[1 + 2 * kStages];
  const std::uint32_t tiles = (shared_address(shared) + 1023) & ~1023u,
                      barriers = shared_address(barrier_memory);
  const AttentionShape& s = c.a.shape;
  const int head = blockIdx.x, group = head / (s.heads / s.kv_heads),
            first = (gridDim.y - 1 - blockIdx.y) * kRows;
  const KeyRange all = block_range<kRows>(s, first);
  if (threadIdx.x == 0) {
    barrier_init(barriers, 1);
    for (int i = 0; i < kStages; ++i) {
      barrier_init(barriers + 8 + i * 16, 1);
      barrier_init(barriers + 16 + i * 16, 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<24>();
    if (threadIdx.x == 0) produce_keys<D>(c, tiles, barriers, head, group, first, all);
  } else {
    take_registers<240>();
    consume_keys<D>(c, tiles, barriers, head, first, all);
  }
#endif
}

// ---- dk, dv

struct __align__(16) QueryFacts {
  int lo, hi;
  float lse, delta;
};

template <int D>
struct KeyPass {
  static constexpr int queries = 64, row_bytes = kRows * D * 2, tile_bytes = queries * D * 2;
  static constexpr int facts_at = 2 * row_bytes + kStages * 2 * tile_bytes;
  static constexpr int shared_bytes = facts_at + kStages * queries * 16 + 1024;
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

template <int D>
__device__ void consume_queries(const BackwardCall& c, std::uint32_t tiles, const char* memory,
                                const int* more, std::uint32_t barriers, int group, int first) {
  using P = KeyPass<D>;
  const AttentionBackward& a = c.a;
  const AttentionShape& s = a.shape;
  const int part = static_cast<int>(threadIdx.x) / 128 - 1,
            warp_row = first + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + part * 64;
  const int lane = threadIdx.x % 32, key = warp_row + lane / 4;
  const bool speaker = threadIdx.x % 128 == 0;
  const float scale = s.scale * kLog2E;
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  barrier_wait(barriers, 0);
  for (int stage = 0, parity = 0;;) {
    const std::uint32_t full = barriers + 8 + stage * 16,
                        q = tiles + 2 * P::row_bytes + stage * 2 * P::tile_bytes,
                        d_o = q + P::tile_bytes;
    barrier_wait(full, parity);
    if (!more[stage]) break;
    const auto* facts = reinterpret_cast<const QueryFacts*>(memory + P::facts_at) +
                        stage * P::queries + lane % 4 * 2;
    float p[P::queries / 8][4], g[P::queries / 8][4];
    multiply_rows<D, P::queries>(p, tiles + part * 64 * 128, kRows, q);
    multiply_rows<D, P::queries>(g, tiles + P::row_bytes + part * 64 * 128, kRows, d_o);
    warpgroup_wait<1>();
#pragma unroll
    for (int j = 0; j < P::queries / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const QueryFacts f = facts[j * 8 + e];
#pragma unroll
        for (int h = 0; h < 2; ++h)
          p[j][e + 2 * h] = key + 8 * h >= f.lo && key + 8 * h <= f.hi
                                ? fast_exp2(p[j][e + 2 * h] * scale - f.lse)
                                : 0.0f;
      }
    std::uint32_t weights[P::queries / 16][4], ds[P::queries / 16][4];
    pack_rows<P::queries>(weights, p);
    warpgroup_wait<0>();
    warpgroup_begin();
    add_rows<D, P::queries>(dv, weights, d_o);
    warpgroup_commit();
#pragma unroll
    for (int j = 0; j < P::queries / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float delta = facts[j * 8 + e].delta;
#pragma unroll
        for (int h = 0; h < 2; ++h) p[j][e + 2 * h] *= g[j][e + 2 * h] - delta;
      }
    pack_rows<P::queries>(ds, p);
    warpgroup_begin();
    add_rows<D, P::queries>(dk, ds, q);
    warpgroup_commit();
    warpgroup_wait<0>();
    if (speaker) barrier_arrive(full + 8);
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
  const std::int64_t kv_head = static_cast<std::int64_t>(group) * D;
  if (c.parts) {
    const std::int64_t row_size = static_cast<std::int64_t>(s.kv_heads) * D,
                       size = s.keys * row_size;
    float* part = c.parts + 2 * blockIdx.z * size + kv_head;
    store_part<D>(part, row_size, warp_row, s.keys, dk, s.scale);
    store_part<D>(part + size, row_size, warp_row, s.keys, dv, 1);
    return;
  }
  if (a.dk)
    store_rows<D>(static_cast<__nv_bfloat16*>(a.dk) + kv_head, a.dk_stride, warp_row, s.keys, dk,
                  s.scale, s.scale);
  if (a.dv)
    store_rows<D>(static_cast<__nv_bfloat16*>(a.dv) + kv_head, a.dv_stride, warp_row, s.keys, dv, 1,
                  1);
}

// Two warps: the first's first lane starts the copies, the second writes the facts of the queries,
// and after the last tile says so.
template <int D>
__device__ void produce_queries(const BackwardCall& c, std::uint32_t tiles, char* memory, int* more,
                                std::uint32_t barriers, int group, int first) {
  using P = KeyPass<D>;
  const AttentionShape& s = c.a.shape;
  const int lane = threadIdx.x % 32, share = s.heads / s.kv_heads;
  const int first_head = group * share + static_cast<int>(blockIdx.z * share / gridDim.z);
  const int last_head = group * share + static_cast<int>((blockIdx.z + 1) * share / gridDim.z);
  const bool copies = threadIdx.x < 32;
  if (threadIdx.x == 0) {
    barrier_expect(barriers, 2 * P::row_bytes);
    copy_tile<D>(tiles, &c.k, group, first, kRows, barriers);
    copy_tile<D>(tiles + P::row_bytes, &c.v, group, first, kRows, barriers);
  }
  int stage = 0, parity = 0;
  for (int q0 = 0; q0 < s.queries; q0 += P::queries) {
    const KeyRange r = block_range<P::queries>(s, q0);
    if (r.lo >= first + kRows || r.hi < first) continue;
    for (int head = first_head; head < last_head; ++head) {
      const std::uint32_t full = barriers + 8 + stage * 16,
                          q = tiles + 2 * P::row_bytes + stage * 2 * P::tile_bytes;
      barrier_wait(full + 8, parity ^ 1);
      if (copies && lane == 0) {
        barrier_expect(full, 2 * P::tile_bytes);
        copy_tile<D>(q, &c.q, head, q0, P::queries, full);
        copy_tile<D>(q + P::tile_bytes, &c.d_o, head, q0, P::queries, full);
      }
      if (!copies) {
        auto* facts = reinterpret_cast<QueryFacts*>(memory + P::facts_at) + stage * P::queries;
        for (int i = lane; i < P::queries; i += 32) {
          const KeyRange seen = row_range(s, q0 + i);
          const std::int64_t at = static_cast<std::int64_t>(q0 + i) * s.heads + head;
          const bool valid = seen.lo <= seen.hi;
          facts[i] = {seen.lo, seen.hi, valid ? c.a.lse[at] * kLog2E : 0.0f,
                      valid ? c.delta[at] : 0.0f};
        }
        if (lane == 0) more[stage] = 1;
        __syncwarp();
        if (lane == 0) barrier_arrive(full);
      }
      if (++stage == kStages) stage = 0, parity ^= 1;
    }
  }
  barrier_wait(barriers + 16 + stage * 16, parity ^ 1);
  if (!copies && lane == 0) more[stage] = 0;
  if (lane == 0) barrier_arrive(barriers + 8 + stage * 16);
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1) key_kernel(const __grid_constant__ BackwardCall c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char shared[];
  __shared__ std::uint64_t barrier_memory[1 + 2 * kStages];
  __shared__ int more[kStages];
  const std::uint32_t start = shared_address(shared), tiles = (start + 1023) & ~1023u,
                      barriers = shared_address(barrier_memory);
  char* memory = shared + (tiles - start);
  const int group = blockIdx.x, first = blockIdx.y * kRows;
  if (threadIdx.x == 0) {
    barrier_init(barriers, 1);
    for (int i = 0; i < kStages; ++i) {
      barrier_init(barriers + 8 + i * 16, 2);
      barrier_init(barriers + 16 + i * 16, 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x < 64) produce_queries<D>(c, tiles, memory, more, barriers, group, first);
  } else {
    take_registers<232>();
    consume_queries<D>(c, tiles, memory, more, barriers, group, first);
  }
#endif
}

bool for_warpgroups(const AttentionShape& s) {
  return device_limits().capability == 90 && s.queries >= 64 && s.keys >= 64;
}

// Parts that the heads of a group are split into, so that few or unequal blocks of keys fill the
// device.
int parts_of(const AttentionBackward& a) {
  const AttentionShape& s = a.shape;
  if (!for_warpgroups(s) || !attention_tensor_cores(s, a.type, a.type)) return 1;
  const std::int64_t blocks = ceil_div(s.keys, kRows) * s.kv_heads, share = s.heads / s.kv_heads;
  const std::int64_t wanted = ceil_div(3 * device_limits().multiprocessors, blocks);
  return blocks >= 2 * device_limits().multiprocessors
             ? 1
             : static_cast<int>(wanted < share ? wanted : share);
}

template <int D>
void launch(const AttentionBackward& a, const float* delta, float* parts, cudaStream_t stream) {
  static const bool allowed = (allow_shared(query_kernel<D>, QueryPass<D>::shared_bytes),
                               allow_shared(key_kernel<D>, KeyPass<D>::shared_bytes), true);
  static_cast<void>(allowed);
  const AttentionShape& s = a.shape;
  BackwardCall c;
  c.a = a;
  c.delta = delta;
  const int count = parts_of(a);
  c.parts = count > 1 ? parts : nullptr;
  auto boxes = [&](int queries, int keys) {
    c.q = bf16_boxes(a.q, s.heads * D, s.queries, a.q_stride, queries);
    c.d_o = bf16_boxes(a.d_o, s.heads * D, s.queries, a.do_stride, queries);
    c.k = bf16_boxes(a.k, s.kv_heads * D, s.keys, a.k_stride, keys);
    c.v = bf16_boxes(a.v, s.kv_heads * D, s.keys, a.v_stride, keys);
  };
  if (a.dq) {
    boxes(kRows, QueryPass<D>::keys);
    const dim3 grid(static_cast<unsigned>(s.heads),
                    static_cast<unsigned>(ceil_div(s.queries, kRows)));
    query_kernel<D><<<grid, kThreads, QueryPass<D>::shared_bytes, stream>>>(c);
    check_launch("attention_backward_wgmma");
  }
  if (a.dk || a.dv) {
    boxes(KeyPass<D>::queries, kRows);
    const dim3 grid(static_cast<unsigned>(s.kv_heads),
                    static_cast<unsigned>(ceil_div(s.keys, kRows)), static_cast<unsigned>(count));
    key_kernel<D><<<grid, kThreads, KeyPass<D>::shared_bytes, stream>>>(c);
    check_launch("attention_backward_wgmma");
    if (count == 1) return;
    const std::int64_t size = static_cast<std::int64_t>(s.keys) * s.kv_heads * D;
    add_parts_kernel<<<static_cast<unsigned>(ceil_div(size, 256)), 256, 0, stream>>>(a, parts,
                                                                                     count);
    check_launch("attention_add_parts");
  }
}

}  // namespace

std::size_t attention_parts_bytes(const AttentionBackward& a) {
  const std::int64_t count = parts_of(a);
  return count > 1
             ? static_cast<std::size_t>(count * 2 * a.shape.keys * a.shape.kv_heads * a.shape.d) * 4
             : 0;
}

bool attention_backward_wgmma(const AttentionBackward& a, const float* delta, float* parts,
                              cudaStream_t stream) {
  if (!for_warpgroups(a.shape)) return false;
  if (!aligned_rows(a.q, a.q_stride) || !aligned_rows(a.k, a.k_stride) ||
      !aligned_rows(a.v, a.v_stride) || !aligned_rows(a.d_o, a.do_stride))
    return false;
  a.shape.d == 64 ? launch<64>(a, delta, parts, stream) : launch<128>(a, delta, parts, stream);
  return true;
}

}  // namespace supersonic::cuda
