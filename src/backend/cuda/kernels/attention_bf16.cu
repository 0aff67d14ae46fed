// Attention forward in the tensor cores (sm_80 and later) for bf16 and head sizes 64 and 128. A
// block of 4 warps owns 64 queries of one head, 16 a warp; keys and values pass by in tiles of 64,
// the next pair on its way by cp.async. Scores, probabilities and the output stay in registers
// (arXiv 2307.08691). Tiles outside of the block's key range are not read, and only tiles at the
// edge of some row's range are masked. Limit: mma.sync, and the shared memory that feeds it (each
// warp reads every tile whole).
#include "backend/cuda/kernels/attention_tiles.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kQueries = 16 * kWarps, kKeys = 64;

template <int D>
constexpr int kSharedBytes = (kQueries + 4 * kKeys) * D * 2;

struct RowState {                                            // of the thread's two rows
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};  // scores in units of log 2
};

// Scores -> probabilities against the new maxima; the output so far is scaled to them.
template <int D>
__device__ void soften(float (&s)[kKeys / 8][4], float (&out)[D / 8][4], RowState& r, float scale) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float best = -INFINITY;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) best = fmaxf(best, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
    best = fmaxf(r.top[h], max_of_four(best) * scale);
    const float base = best == -INFINITY ? 0.0f : best, fade = fast_exp2(r.top[h] - base);
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int e = 2 * h; e < 2 * h + 2; ++e) {
        s[j][e] = fast_exp2(s[j][e] * scale - base);
        sum += s[j][e];
      }
    r.total[h] = r.total[h] * fade + sum;
    r.top[h] = best;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) out[j][2 * h] *= fade, out[j][2 * h + 1] *= fade;
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ AttentionForward a, bool aligned_q, bool aligned_kv) {
  extern __shared__ __align__(128) char shared[];
  constexpr int q_bytes = kQueries * D * 2, tile_bytes = kKeys * D * 2;
  const AttentionShape& s = a.shape;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // The last queries see the most keys: they start first.
  const int head = blockIdx.x, group = head / (s.heads / s.kv_heads),
            first = (gridDim.y - 1 - blockIdx.y) * kQueries;
  const auto* q = static_cast<const __nv_bfloat16*>(a.q) + static_cast<std::int64_t>(head) * D;
  const auto* k = static_cast<const __nv_bfloat16*>(a.k) + static_cast<std::int64_t>(group) * D;
  const auto* v = static_cast<const __nv_bfloat16*>(a.v) + static_cast<std::int64_t>(group) * D;
  const KeyRange all = block_range<kQueries>(s, first);
  const int row = first + warp * 16 + lane / 4;
  const KeyRange seen[2] = {row_range(s, row), row_range(s, row + 8)};
  int inner_lo = max(seen[0].lo, seen[1].lo),
      inner_hi = min(seen[0].hi, seen[1].hi);  // keys that all 16 rows see
  for (int step = 16; step >= 4; step /= 2) {
    inner_lo = max(inner_lo, __shfl_xor_sync(0xffffffffu, inner_lo, step));
    inner_hi = min(inner_hi, __shfl_xor_sync(0xffffffffu, inner_hi, step));
  }
  auto fetch = [&](int k0, int stage) {
    if (k0 <= all.hi) {
      char* tile = shared + q_bytes + stage * 2 * tile_bytes;
      copy_rows<D, kKeys, kThreads>(tile, k, a.k_stride, k0, s.keys, aligned_kv);
      copy_rows<D, kKeys, kThreads>(tile + tile_bytes, v, a.v_stride, k0, s.keys, aligned_kv);
    }
    commit_copies();
  };
  const int begin = all.lo <= all.hi ? all.lo / kKeys * kKeys : 0;
  copy_rows<D, kQueries, kThreads>(shared, q, a.q_stride, first, s.queries, aligned_q);
  fetch(begin, 0);
  float out[D / 8][4] = {};
  RowState state;
  const float scale = s.scale * kLog2E;
  const std::uint32_t base = shared_address(shared);
  for (int k0 = begin, stage = 0; k0 <= all.hi; k0 += kKeys, stage ^= 1) {
    wait_copies<0>();
    __syncthreads();
    fetch(k0 + kKeys, stage ^ 1);
    const std::uint32_t keys = base + q_bytes + stage * 2 * tile_bytes;
    float p[kKeys / 8][4];
    row_products<D, kKeys>(p, base, warp * 16, keys);
    if (k0 < inner_lo || k0 + kKeys - 1 > inner_hi) {
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = k0 + j * 8 + lane % 4 * 2 + e % 2;
          if (key < seen[e / 2].lo || key > seen[e / 2].hi) p[j][e] = -INFINITY;
        }
    }
    soften<D>(p, out, state, scale);
    add_product<D, kKeys>(out, p, keys + tile_bytes);
  }
  wait_copies<0>();
  float inverse[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float total = sum_of_four(state.total[h]);
    inverse[h] = total > 0 ? 1 / total : 0;
    if (a.lse && lane % 4 == 0 && row + 8 * h < s.queries)
      a.lse[static_cast<std::int64_t>(row + 8 * h) * s.heads + head] =
          total > 0 ? state.top[h] * (1 / kLog2E) + logf(total) : -INFINITY;
  }
  store_rows<D>(static_cast<__nv_bfloat16*>(a.o) + static_cast<std::int64_t>(head) * D, a.o_stride,
                first + warp * 16, s.queries, out, inverse[0], inverse[1]);
}

template <int D>
void launch(const AttentionForward& a, cudaStream_t stream) {
  static const bool allowed = (allow_shared(forward_kernel<D>, kSharedBytes<D>), true);
  static_cast<void>(allowed);
  const dim3 grid(static_cast<unsigned>(a.shape.heads),
                  static_cast<unsigned>(ceil_div(a.shape.queries, kQueries)));
  const bool aligned_q = aligned_rows(a.q, a.q_stride),
             aligned_kv = aligned_rows(a.k, a.k_stride) && aligned_rows(a.v, a.v_stride);
  forward_kernel<D><<<grid, kThreads, kSharedBytes<D>, stream>>>(a, aligned_q, aligned_kv);
  check_launch("attention_forward_bf16");
}

}  // namespace

bool attention_tensor_cores(const AttentionShape& s, DType type, DType kv_type) {
  return device_limits().capability >= 80 && type == DType::bf16 && kv_type == DType::bf16 &&
         (s.d == 64 || s.d == 128) && s.scale > 0;
}

void attention_forward_bf16(const AttentionForward& a, cudaStream_t stream) {
  a.shape.d == 64 ? launch<64>(a, stream) : launch<128>(a, stream);
}

}  // namespace supersonic::cuda
