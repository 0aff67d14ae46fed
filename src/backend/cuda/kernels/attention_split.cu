// Attention of a few queries against many keys (decoding): the keys are split over blocks, so that
// one token fills the device. A block takes one kv head, up to `rows` (query, head) pairs of its
// group, and a part of their keys; each key is loaded once for all rows. d / 8 lanes share a key, 8
// elements a lane, two keys at a time; every such group keeps its own running softmax, and they are
// merged at the end: within the warp, within the block, and over the parts in a fixed order: of a
// few by the first block of their cluster (sm_90 and later), of many by a second kernel. Bytes
// moved: K and V once; limit: the memory's bandwidth.
#include <cooperative_groups.h>

#include <algorithm>

#include "backend/cuda/kernels/attention_common.cuh"
#include "backend/cuda/kernels/overlap.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kFewQueries = 4, kKeysPerSplit = 64,
              kMostSplits = 512, kMostCluster = 8, kBlocks = 3;

int share_of(const AttentionShape& s) { return s.heads / s.kv_heads; }
int rows_of(const AttentionShape& s) {
  return std::min(4, s.queries * share_of(s) == 3 ? 4 : s.queries * share_of(s));
}
std::int64_t row_blocks(const AttentionShape& s) {
  return ceil_div(static_cast<std::int64_t>(s.queries) * share_of(s), rows_of(s));
}

// Eight elements as they are stored: f32 in two words of 16 bytes, the narrow types in one.
template <bool wide>
struct Eight {
  uint4 w[wide ? 2 : 1];
};
template <bool wide>
__device__ Eight<wide> load_eight(const void* data, bool fast, std::int64_t at, bool valid) {
  Eight<wide> r{};
  if (!valid) return r;
  const auto* from = static_cast<const char*>(data) + at * (wide ? 4 : 2);
  if (fast) {
#pragma unroll
    for (int i = 0; i < (wide ? 2 : 1); ++i) r.w[i] = reinterpret_cast<const uint4*>(from)[i];
    return r;
  }
#pragma unroll
  for (int i = 0; i < (wide ? 2 : 1); ++i) {
    std::uint32_t words[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (wide)
        words[k] = reinterpret_cast<const std::uint32_t*>(from)[i * 4 + k];
      else
        words[k] = reinterpret_cast<const std::uint16_t*>(from)[2 * k] |
                   reinterpret_cast<const std::uint16_t*>(from)[2 * k + 1] << 16;
    }
    r.w[i] = make_uint4(words[0], words[1], words[2], words[3]);
  }
  return r;
}
template <bool wide>
__device__ void unpack_eight(const Eight<wide>& r, DType type, float (&out)[8]) {
  const std::uint32_t words[4] = {r.w[0].x, r.w[0].y, r.w[0].z, r.w[0].w};
  if constexpr (wide) {
    const std::uint32_t more[4] = {r.w[1].x, r.w[1].y, r.w[1].z, r.w[1].w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      out[i] = __uint_as_float(words[i]), out[4 + i] = __uint_as_float(more[i]);
  } else if (type == DType::bf16) {
    unpack8(r.w[0], out);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
      out[2 * i] = pair.x, out[2 * i + 1] = pair.y;
    }
  }
}

struct Softmax {
  float top = -INFINITY, total = 0;  // top in units of log 2
  float out[8] = {};
};
__device__ void merge(Softmax& a, float top, float total, const float* out) {
  const float best = fmaxf(a.top, top), base = best == -INFINITY ? 0.0f : best;
  const float mine = exp2f(a.top - base), theirs = exp2f(top - base);
  a.top = best, a.total = a.total * mine + total * theirs;
#pragma unroll
  for (int e = 0; e < 8; ++e) a.out[e] = a.out[e] * mine + out[e] * theirs;
}

template <class T>
__device__ inline T* part_at(T* parts, const AttentionShape& s, int split, std::int64_t row) {
  return parts + (static_cast<std::int64_t>(split) * s.queries * s.heads + row) * (s.d + 2);
}

__device__ void store_result(const AttentionForward& a, std::int64_t row, int c, int count,
                             const Softmax& r) {
  const float inverse = r.total > 0 ? 1 / r.total : 0;
  const std::int64_t at = row / a.shape.heads * a.o_stride + row % a.shape.heads * a.shape.d;
  for (int e = 0; e < count; ++e) store_float(a.o, a.type, at + c + e, r.out[e] * inverse);
  if (a.lse && c == 0)
    a.lse[row] = r.total > 0 ? r.top * 0.693147180559945f + logf(r.total) : -INFINITY;
}

// What a block has of its rows, eight elements of d each.
template <int count>
struct Parts {
  float top[count], total[count], out[count][8];
};

// joined: the splits are a cluster, whose first block gathers the parts from the others' shared
// memory; else they go to `parts`, for merge_kernel.
template <int lanes, int rows, bool wide, bool joined>
__global__ void __launch_bounds__(kThreads, kBlocks)
    split_kernel(const __grid_constant__ AttentionForward a, float* parts, bool fast_q,
                 bool fast_kv) {
  constexpr int kUnroll = 2, per_warp = 32 / lanes, groups = kWarps * per_warp;
  __shared__ float tops[kWarps][rows], totals[kWarps][rows], outs[kWarps][rows][lanes * 8];
  __shared__ Parts<joined ? rows * lanes : 1> mine;
  const AttentionShape& s = a.shape;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = lane % lanes * 8,
            share = s.heads / s.kv_heads;
  const int splits = gridDim.x, split = blockIdx.x, group = blockIdx.y;
  const bool active = c < s.d;
  let_next_start();
  after_previous();
  float q[rows][8];
  KeyRange seen[rows], all{kNoKey, -1};
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    const int pair = blockIdx.z * rows + r, query = pair / share,
              head = group * share + pair % share;
    const bool valid = query < s.queries;
    seen[r] = valid ? row_range(s, query) : KeyRange{kNoKey, -1};
    all.lo = min(all.lo, seen[r].lo), all.hi = max(all.hi, seen[r].hi);
    dense8(a.q, a.type, fast_q, valid ? query * a.q_stride + head * s.d + c : 0,
           valid && active ? 8 : 0, q[r]);
#pragma unroll
    for (int e = 0; e < 8; ++e) q[r][e] *= s.scale * 1.44269504088896f;
  }
  const int count = all.lo <= all.hi ? all.hi - all.lo + 1 : 0,
            part = (count + splits - 1) / splits;
  const int begin = count == 0 ? 0 : all.lo + split * part,
            end = count == 0 ? 0 : min(all.hi + 1, begin + part);
  const std::int64_t kv_at = static_cast<std::int64_t>(group) * s.d + c;
  Softmax state[rows];
  // The next keys are on their way while these are summed.
  Eight<wide> next_k[kUnroll], next_v[kUnroll];
  auto key_at = [&](int k0, int u) { return k0 + u * groups + warp * per_warp + lane / lanes; };
  auto fetch = [&](int k0) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t key = key_at(k0, u);
      const bool valid = active && key < end;
      next_k[u] = load_eight<wide>(a.k, fast_kv, key * a.k_stride + kv_at, valid);
      next_v[u] = load_eight<wide>(a.v, fast_kv, key * a.v_stride + kv_at, valid);
    }
  };
  fetch(begin);
  for (int k0 = begin; k0 < end; k0 += groups * kUnroll) {
    float k[kUnroll][8], v[kUnroll][8];
    int keys[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      keys[u] = key_at(k0, u);
      unpack_eight(next_k[u], a.kv_type, k[u]);
      unpack_eight(next_v[u], a.kv_type, v[u]);
    }
    fetch(k0 + groups * kUnroll);
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float score[kUnroll], best = state[r].top;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        float dot = 0;
#pragma unroll
        for (int e = 0; e < 8; ++e) dot += q[r][e] * k[u][e];
#pragma unroll
        for (int step = lanes / 2; step > 0; step /= 2)
          dot += __shfl_xor_sync(0xffffffffu, dot, step);
        score[u] =
            keys[u] < end && keys[u] >= seen[r].lo && keys[u] <= seen[r].hi ? dot : -INFINITY;
        best = fmaxf(best, score[u]);
      }
      const float base = best == -INFINITY ? 0.0f : best, fade = exp2f(state[r].top - base);
      state[r].top = best, state[r].total *= fade;
#pragma unroll
      for (int e = 0; e < 8; ++e) state[r].out[e] *= fade;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const float p = exp2f(score[u] - base);
        state[r].total += p;
#pragma unroll
        for (int e = 0; e < 8; ++e) state[r].out[e] += p * v[u][e];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < rows; ++r) {
#pragma unroll
    for (int step = lanes; step < 32; step *= 2) {
      float out[8];
      const float top = __shfl_xor_sync(0xffffffffu, state[r].top, step),
                  total = __shfl_xor_sync(0xffffffffu, state[r].total, step);
#pragma unroll
      for (int e = 0; e < 8; ++e) out[e] = __shfl_xor_sync(0xffffffffu, state[r].out[e], step);
      merge(state[r], top, total, out);
    }
    if (lane < lanes) {
      tops[warp][r] = state[r].top, totals[warp][r] = state[r].total;
#pragma unroll
      for (int e = 0; e < 8; ++e) outs[warp][r][c + e] = state[r].out[e];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < rows * lanes; i += kThreads) {
    const int r = i / lanes, at = i % lanes * 8, pair = blockIdx.z * rows + r, query = pair / share;
    if (query >= s.queries || at >= s.d) continue;
    Softmax sum;
    for (int w = 0; w < kWarps; ++w) merge(sum, tops[w][r], totals[w][r], &outs[w][r][at]);
    const std::int64_t row =
        static_cast<std::int64_t>(query) * s.heads + group * share + pair % share;
    if (splits == 1) {
      store_result(a, row, at, 8, sum);
      continue;
    }
    if constexpr (joined) {
      mine.top[i] = sum.top, mine.total[i] = sum.total;
#pragma unroll
      for (int e = 0; e < 8; ++e) mine.out[i][e] = sum.out[e];
      continue;
    }
    float* to = part_at(parts, s, split, row);
    for (int e = 0; e < 8; ++e) to[at + e] = sum.out[e];
    if (at == 0) to[s.d] = sum.top, to[s.d + 1] = sum.total;
  }
  if constexpr (joined) {
#if __CUDA_ARCH__ >= 900
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    cluster.sync();
    for (int i = threadIdx.x; split == 0 && i < rows * lanes; i += kThreads) {
      const int at = i % lanes * 8, pair = blockIdx.z * rows + i / lanes, query = pair / share;
      if (query >= s.queries || at >= s.d) continue;
      Softmax sum;
      for (int z = 0; z < splits; ++z) {
        const Parts<rows* lanes>& part = *cluster.map_shared_rank(&mine, z);
        float out[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) out[e] = part.out[i][e];
        merge(sum, part.top[i], part.total[i], out);
      }
      store_result(a, static_cast<std::int64_t>(query) * s.heads + group * share + pair % share, at,
                   8, sum);
    }
    cluster.sync();  // until then the others' memory stays
#endif
  }
}

// A block a row: the parts' weights first, then each thread one element of d over all parts.
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const __grid_constant__ AttentionForward a, const float* parts, int splits) {
  __shared__ float weights[kMostSplits], shared[2 * kWarps];
  const std::int64_t row = blockIdx.x;
  const int d = a.shape.d, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  let_next_start();
  after_previous();
  float top = -INFINITY, total = 0;
  for (int z = threadIdx.x; z < splits; z += kThreads)
    top = fmaxf(top, weights[z] = part_at(parts, a.shape, z, row)[d]);
  top = warp_max(top);
  if (lane == 0) shared[warp] = top;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, shared[w]);
  const float base = top == -INFINITY ? 0.0f : top;
  for (int z = threadIdx.x; z < splits; z += kThreads) {
    weights[z] = exp2f(weights[z] - base);
    total += weights[z] * part_at(parts, a.shape, z, row)[d + 1];
  }
  total = warp_sum(total);
  if (lane == 0) shared[kWarps + warp] = total;
  __syncthreads();
  total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared[kWarps + w];
  const float inverse = total > 0 ? 1 / total : 0;
  for (int c = threadIdx.x; c < d; c += kThreads) {
    float sum = 0;
#pragma unroll 8
    for (int z = 0; z < splits; ++z) sum += weights[z] * part_at(parts, a.shape, z, row)[c];
    store_float(a.o, a.type, row / a.shape.heads * a.o_stride + row % a.shape.heads * d + c,
                sum * inverse);
  }
  if (a.lse && threadIdx.x == 0)
    a.lse[row] = total > 0 ? top * 0.693147180559945f + logf(total) : -INFINITY;
}

template <int lanes, int rows>
void launch(const AttentionForward& a, float* parts, int splits, cudaStream_t stream) {
  auto fast = [](const void* p, std::int64_t stride) {
    return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && stride % 8 == 0;
  };
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(a.shape.kv_heads),
                  static_cast<unsigned>(row_blocks(a.shape)));
  const bool joined = (splits == 2 || splits == 4 || splits == kMostCluster) &&
                      device_limits().capability >= 90,
             wide = a.kv_type == DType::f32;
  const auto kernel =
      joined ? wide ? split_kernel<lanes, rows, true, true> : split_kernel<lanes, rows, false, true>
      : wide ? split_kernel<lanes, rows, true, false>
             : split_kernel<lanes, rows, false, false>;
  launch_overlapped("attention_split", kernel,
                    Launch{grid, kThreads, 0, joined ? static_cast<unsigned>(splits) : 1}, stream,
                    a, parts, fast(a.q, a.q_stride),
                    fast(a.k, a.k_stride) && fast(a.v, a.v_stride));
  if (splits > 1 && !joined) attention_merge(a, parts, splits, stream);
}

template <int lanes>
void launch_rows(const AttentionForward& a, float* parts, int splits, cudaStream_t stream) {
  const int rows = rows_of(a.shape);
  if (rows == 1) return launch<lanes, 1>(a, parts, splits, stream);
  rows == 2 ? launch<lanes, 2>(a, parts, splits, stream)
            : launch<lanes, 4>(a, parts, splits, stream);
}

}  // namespace

int attention_key_splits(const AttentionForward& a) {
  const AttentionShape& s = a.shape;
  if (s.queries > kFewQueries) return 0;
  const std::int64_t blocks = s.kv_heads * row_blocks(s),
                     wanted = std::max<std::int64_t>(
                         1, kBlocks * device_limits().multiprocessors / blocks);
  const std::int64_t most = std::min<std::int64_t>(ceil_div(s.keys, kKeysPerSplit), kMostSplits);
  return static_cast<int>(wanted < most ? wanted : most);
}

std::size_t attention_split_workspace(const AttentionForward& a) {
  return attention_merge_bytes(a.shape, attention_key_splits(a));
}

std::size_t attention_merge_bytes(const AttentionShape& s, int splits) {
  return splits > 1
             ? static_cast<std::size_t>(std::int64_t{splits} * s.queries * s.heads * (s.d + 2)) * 4
             : 0;
}

void attention_merge(const AttentionForward& a, const float* parts, int splits,
                     cudaStream_t stream) {
  launch_overlapped("attention_merge", merge_kernel,
                    Launch{static_cast<unsigned>(a.shape.queries * a.shape.heads), kThreads},
                    stream, a, parts, splits);
}

void attention_split(const AttentionForward& a, void* workspace, cudaStream_t stream) {
  const int splits = attention_key_splits(a);
  auto* parts = static_cast<float*>(workspace);
  if (a.shape.d <= 64) return launch_rows<8>(a, parts, splits, stream);
  if (a.shape.d <= 128) return launch_rows<16>(a, parts, splits, stream);
  launch_rows<32>(a, parts, splits, stream);
}

}  // namespace supersonic::cuda
