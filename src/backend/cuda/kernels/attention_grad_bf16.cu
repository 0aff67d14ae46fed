// Attention backward in the tensor cores (sm_80 and later) for bf16 and head sizes 64 and 128,
// deterministic: dq by blocks of 64 queries of a head, for which keys pass by; dk and dv by blocks
// of 64 keys of a kv head, for which the queries of all heads of the group pass by. The second
// works on transposed scores, so that in both a warp's 16 rows of probabilities and of their
// gradients are left operands as they come out of the tensor cores. Seven products of the scores'
// size instead of five, in exchange for no atomics. Limit: mma.sync.
#include "backend/cuda/kernels/attention_tiles.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16 * kWarps;

struct Aligned {
  bool q, k, v, d_o;
};

template <int D>
constexpr int kQueryKeys = 64;  // keys of a tile that passes by
template <int D>
constexpr int kKeyQueries = D == 64 ? 64 : 32;  // queries of a tile that passes by
template <int D>
constexpr int kQueryShared = (2 * kRows + 4 * kQueryKeys<D>)*D * 2;
template <int D>
constexpr int kKeyShared = (2 * kRows + 4 * kKeyQueries<D>)*D * 2 + 2 * kKeyQueries<D> * 16;

template <int D>
__global__ void __launch_bounds__(kThreads)
    query_kernel(const __grid_constant__ AttentionBackward a, const float* delta, Aligned al) {
  extern __shared__ __align__(128) char shared[];
  constexpr int row_bytes = kRows * D * 2, keys = kQueryKeys<D>, tile_bytes = keys * D * 2;
  const AttentionShape& s = a.shape;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int head = blockIdx.x, group = head / (s.heads / s.kv_heads),
            first = (gridDim.y - 1 - blockIdx.y) * kRows;
  const std::int64_t q_head = static_cast<std::int64_t>(head) * D,
                     kv_head = static_cast<std::int64_t>(group) * D;
  const auto* k = static_cast<const __nv_bfloat16*>(a.k) + kv_head;
  const auto* v = static_cast<const __nv_bfloat16*>(a.v) + kv_head;
  const KeyRange all = block_range<kRows>(s, first);
  const int row = first + warp * 16 + lane / 4;
  const KeyRange seen[2] = {row_range(s, row), row_range(s, row + 8)};
  float lse[2], row_delta[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const std::int64_t at = static_cast<std::int64_t>(row + 8 * h) * s.heads + head;
    const bool valid = row + 8 * h < s.queries;
    lse[h] = valid ? a.lse[at] * kLog2E : 0;
    row_delta[h] = valid ? delta[at] : 0;
  }
  auto fetch = [&](int k0, int stage) {
    if (k0 <= all.hi) {
      char* tile = shared + 2 * row_bytes + stage * 2 * tile_bytes;
      copy_rows<D, keys, kThreads>(tile, k, a.k_stride, k0, s.keys, al.k);
      copy_rows<D, keys, kThreads>(tile + tile_bytes, v, a.v_stride, k0, s.keys, al.v);
    }
    commit_copies();
  };
  copy_rows<D, kRows, kThreads>(shared, static_cast<const __nv_bfloat16*>(a.q) + q_head, a.q_stride,
                                first, s.queries, al.q);
  copy_rows<D, kRows, kThreads>(shared + row_bytes,
                                static_cast<const __nv_bfloat16*>(a.d_o) + q_head, a.do_stride,
                                first, s.queries, al.d_o);
  const int begin = all.lo <= all.hi ? all.lo / keys * keys : 0;
  fetch(begin, 0);
  float dq[D / 8][4] = {};
  const float scale = s.scale * kLog2E;
  const std::uint32_t base = shared_address(shared);
  for (int k0 = begin, stage = 0; k0 <= all.hi; k0 += keys, stage ^= 1) {
    wait_copies<0>();
    __syncthreads();
    fetch(k0 + keys, stage ^ 1);
    const std::uint32_t tile = base + 2 * row_bytes + stage * 2 * tile_bytes;
    float p[keys / 8][4], g[keys / 8][4];
    row_products<D, keys>(p, base, warp * 16, tile);
    row_products<D, keys>(g, base + row_bytes, warp * 16, tile + tile_bytes);
#pragma unroll
    for (int j = 0; j < keys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = k0 + j * 8 + lane % 4 * 2 + e % 2;
        const bool in = key >= seen[e / 2].lo && key <= seen[e / 2].hi;
        g[j][e] =
            in ? fast_exp2(p[j][e] * scale - lse[e / 2]) * (g[j][e] - row_delta[e / 2]) : 0.0f;
      }
    add_product<D, keys>(dq, g, tile);
  }
  wait_copies<0>();
  store_rows<D>(static_cast<__nv_bfloat16*>(a.dq) + q_head, a.dq_stride, first + warp * 16,
                s.queries, dq, s.scale, s.scale);
}

// What a column of transposed scores needs to know of its query.
struct __align__(16) QueryFacts {
  int lo, hi;
  float lse, delta;
};

template <int D>
__global__ void __launch_bounds__(kThreads)
    key_kernel(const __grid_constant__ AttentionBackward a, const float* delta, Aligned al) {
  extern __shared__ __align__(128) char shared[];
  constexpr int row_bytes = kRows * D * 2, queries = kKeyQueries<D>, tile_bytes = queries * D * 2;
  const AttentionShape& s = a.shape;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, share = s.heads / s.kv_heads;
  const int group = blockIdx.x, first = blockIdx.y * kRows;
  const std::int64_t kv_head = static_cast<std::int64_t>(group) * D;
  auto* facts = reinterpret_cast<QueryFacts*>(shared + 2 * row_bytes + 4 * tile_bytes);
  // Positions: (tile of queries, head of the group). Tiles that see none of these keys are left
  // out.
  auto next_tile = [&](int q0) {
    for (; q0 < s.queries; q0 += queries) {
      const KeyRange r = block_range<queries>(s, q0);
      if (r.lo < first + kRows && r.hi >= first) break;
    }
    return q0;
  };
  auto fetch = [&](int q0, int head, int stage) {
    if (q0 < s.queries) {
      char* tile = shared + 2 * row_bytes + stage * 2 * tile_bytes;
      const std::int64_t q_head = static_cast<std::int64_t>(head) * D;
      copy_rows<D, queries, kThreads>(tile, static_cast<const __nv_bfloat16*>(a.q) + q_head,
                                      a.q_stride, q0, s.queries, al.q);
      copy_rows<D, queries, kThreads>(tile + tile_bytes,
                                      static_cast<const __nv_bfloat16*>(a.d_o) + q_head,
                                      a.do_stride, q0, s.queries, al.d_o);
      for (int i = static_cast<int>(threadIdx.x); i < queries; i += kThreads) {
        const KeyRange r = row_range(s, q0 + i);
        const std::int64_t at = static_cast<std::int64_t>(q0 + i) * s.heads + head;
        const bool valid = r.lo <= r.hi;
        facts[stage * queries + i] = {r.lo, r.hi, valid ? a.lse[at] * kLog2E : 0.0f,
                                      valid ? delta[at] : 0.0f};
      }
    }
    commit_copies();
  };
  copy_rows<D, kRows, kThreads>(shared, static_cast<const __nv_bfloat16*>(a.k) + kv_head,
                                a.k_stride, first, s.keys, al.k);
  copy_rows<D, kRows, kThreads>(shared + row_bytes,
                                static_cast<const __nv_bfloat16*>(a.v) + kv_head, a.v_stride, first,
                                s.keys, al.v);
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  const float scale = s.scale * kLog2E;
  const std::uint32_t base = shared_address(shared);
  const int key = first + warp * 16 + lane / 4;
  int q0 = next_tile(0), head = group * share, stage = 0;
  fetch(q0, head, 0);
  while (q0 < s.queries) {
    wait_copies<0>();
    __syncthreads();
    const bool same = head + 1 < (group + 1) * share;
    const int q_next = same ? q0 : next_tile(q0 + queries),
              head_next = same ? head + 1 : group * share;
    fetch(q_next, head_next, stage ^ 1);
    const std::uint32_t tile = base + 2 * row_bytes + stage * 2 * tile_bytes;
    float p[queries / 8][4], g[queries / 8][4];
    row_products<D, queries>(p, base, warp * 16, tile);
    row_products<D, queries>(g, base + row_bytes, warp * 16, tile + tile_bytes);
#pragma unroll
    for (int j = 0; j < queries / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const QueryFacts f = facts[stage * queries + j * 8 + lane % 4 * 2 + e];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const bool in = key + 8 * h >= f.lo && key + 8 * h <= f.hi;
          const float weight = in ? fast_exp2(p[j][e + 2 * h] * scale - f.lse) : 0.0f;
          p[j][e + 2 * h] = weight;
          g[j][e + 2 * h] = weight * (g[j][e + 2 * h] - f.delta);
        }
      }
    add_product<D, queries>(dv, p, tile + tile_bytes);
    add_product<D, queries>(dk, g, tile);
    q0 = q_next, head = head_next, stage ^= 1;
  }
  wait_copies<0>();
  if (a.dk)
    store_rows<D>(static_cast<__nv_bfloat16*>(a.dk) + kv_head, a.dk_stride, first + warp * 16,
                  s.keys, dk, s.scale, s.scale);
  if (a.dv)
    store_rows<D>(static_cast<__nv_bfloat16*>(a.dv) + kv_head, a.dv_stride, first + warp * 16,
                  s.keys, dv, 1, 1);
}

template <int D>
void launch(const AttentionBackward& a, const float* delta, cudaStream_t stream) {
  static const bool allowed = (allow_shared(query_kernel<D>, kQueryShared<D>),
                               allow_shared(key_kernel<D>, kKeyShared<D>), true);
  static_cast<void>(allowed);
  const Aligned al{aligned_rows(a.q, a.q_stride), aligned_rows(a.k, a.k_stride),
                   aligned_rows(a.v, a.v_stride), aligned_rows(a.d_o, a.do_stride)};
  if (a.dq) {
    const dim3 grid(static_cast<unsigned>(a.shape.heads),
                    static_cast<unsigned>(ceil_div(a.shape.queries, kRows)));
    query_kernel<D><<<grid, kThreads, kQueryShared<D>, stream>>>(a, delta, al);
    check_launch("attention_backward_bf16");
  }
  if (a.dk || a.dv) {
    const dim3 grid(static_cast<unsigned>(a.shape.kv_heads),
                    static_cast<unsigned>(ceil_div(a.shape.keys, kRows)));
    key_kernel<D><<<grid, kThreads, kKeyShared<D>, stream>>>(a, delta, al);
    check_launch("attention_backward_bf16");
  }
}

}  // namespace

void attention_backward_bf16(const AttentionBackward& a, const float* delta, cudaStream_t stream) {
  a.shape.d == 64 ? launch<64>(a, delta, stream) : launch<128>(a, delta, stream);
}

}  // namespace supersonic::cuda
