// A cluster of blocks takes a kv head with up to `rows` of its queries; its blocks share the keys,
// d / 8 lanes to a key, 8 elements a lane, and the cluster's first block takes the new key, which
// it also appends, and gathers the others' results in its shared memory. All of this is latency: so
// what no kernel before it decides is done before that one ends. The position is read and its
// sines are made, and the keys' and values' rows are asked into L2; afterwards the position is
// read again, in case that it was written meanwhile. Bytes moved: K and V once; limit for short
// contexts: some six trips to L2 in a row.
#include "backend/cuda/kernels/attend_step.h"

#include <algorithm>

#include "backend/cuda/kernels/cluster.cuh"
#include "backend/cuda/kernels/overlap.cuh"
#include "backend/cuda/kernels/rotary.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kUnroll = 2, kMostCluster = 8, kKeysPerBlock = 32;

// Where a token stands: all that is read of the step's small inputs.
struct Stand {
  int position, at, lo, hi;
};
__device__ inline Stand read_stand(const AttendStepCall& a) {
  return {__ldcg(a.position), __ldcg(a.at), __ldcg(a.lo), __ldcg(a.hi)};
}
__device__ inline bool same(const Stand& a, const Stand& b) {
  return a.position == b.position && a.at == b.at && a.lo == b.lo && a.hi == b.hi;
}

// The keys of a block: begin .. end - 1.
struct Keys {
  int begin, end;
  __device__ Keys(const AttendStepCall& a, const Stand& s) {
    const int lo = max(s.lo, 0), count = max(min(s.hi, a.context - 1) - lo + 1, 0),
              part = (count + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
    begin = lo + static_cast<int>(blockIdx.x) * part;
    end = min(begin + part, lo + count);
  }
};

__device__ inline void prefetch_line(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}
__device__ inline uint4 eight_at(const void* data, std::int64_t at, bool fast) {
  const auto* from = static_cast<const std::uint16_t*>(data) + at;
  if (fast) return *reinterpret_cast<const uint4*>(from);
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    words[i] = from[2 * i] | static_cast<std::uint32_t>(from[2 * i + 1]) << 16;
  return make_uint4(words[0], words[1], words[2], words[3]);
}
__device__ inline void widen_eight(const uint4& v, DType type, float (&out)[8]) {
  if (type == DType::bf16) return unpack8(v, out);
  const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
    out[2 * i] = pair.x, out[2 * i + 1] = pair.y;
  }
}
// A value as it comes back from where it is stored.
__device__ inline float rounded(float x, DType type) {
  if (type == DType::bf16) return __bfloat162float(__float2bfloat16_rn(x));
  return type == DType::f16 ? __half2float(__float2half_rn(x)) : x;
}

struct Softmax {
  float top = -INFINITY, total = 0;  // top in units of log 2
  float out[8] = {};
};
// Takes in `count` keys at once: their scores and values.
template <int count>
__device__ void take(Softmax& s, const float (&score)[count], const float (&v)[count][8]) {
  float best = s.top;
#pragma unroll
  for (int u = 0; u < count; ++u) best = fmaxf(best, score[u]);
  const float base = best == -INFINITY ? 0.0f : best, fade = exp2f(s.top - base);
  s.top = best, s.total *= fade;
#pragma unroll
  for (int e = 0; e < 8; ++e) s.out[e] *= fade;
#pragma unroll
  for (int u = 0; u < count; ++u) {
    const float p = exp2f(score[u] - base);
    s.total += p;
#pragma unroll
    for (int e = 0; e < 8; ++e) s.out[e] = fmaf(p, v[u][e], s.out[e]);
  }
}

// Results of a number of parts, by row: largest score, sum, values.
template <int count, int rows, int width>
struct Parts {
  float top[count][rows], total[count][rows], out[count][rows][width];
};
// Column c of a row over all parts; the row's top and total.
template <int count, int rows, int width>
__device__ float merged(const Parts<count, rows, width>& p, int parts, int r, int c, float& top,
                        float& total) {
  top = -INFINITY, total = 0;
  for (int i = 0; i < parts; ++i) top = fmaxf(top, p.top[i][r]);
  const float base = top == -INFINITY ? 0.0f : top;
  float sum = 0;
#pragma unroll 8
  for (int i = 0; i < parts; ++i) {
    const float weight = exp2f(p.top[i][r] - base);
    total = fmaf(weight, p.total[i][r], total), sum = fmaf(weight, p.out[i][r][c], sum);
  }
  return sum;
}

// Two neighbours in the order of a rotation, or two that stay: item i of half a head.
struct Pair {
  int u, v;
  bool turns;
  __device__ Pair(const AttendStepCall& a, int i, bool may_turn = true) {
    turns = may_turn && i < a.pairs;
    const bool apart = turns && !a.interleaved;
    u = apart ? i : 2 * i, v = apart ? i + a.pairs : 2 * i + 1;
  }
};

__device__ inline void make_sines(const AttendStepCall& a, int position, float2* sines) {
  for (int i = threadIdx.x; i < a.pairs; i += kThreads) {
    float s, c;
    sincosf(reduced_angle(static_cast<double>(position), a.inv_freq[i]), &s, &c);
    sines[i] = make_float2(s * a.factor, c * a.factor);
  }
}
// A pair of a head, turned and rounded as where rotation is a step of its own.
__device__ inline float2 turned(const AttendStepCall& a, float2 x, float2 sine) {
  return make_float2(rounded(x.x * sine.y - x.y * sine.x, a.type),
                     rounded(x.x * sine.x + x.y * sine.y, a.type));
}
__device__ inline float2 load_pair(const AttendStepCall& a, const void* x, std::int64_t head,
                                   const Pair& p) {
  return make_float2(load_float(x, a.type, head * a.d + p.u),
                     load_float(x, a.type, head * a.d + p.v));
}

template <int lanes, int rows>
__global__ void __launch_bounds__(kThreads)
    attend_step_kernel(const __grid_constant__ AttendStepCall a, bool fast, FaultSink faults) {
  constexpr int width = lanes * 8, per_warp = 32 / lanes, groups = kWarps * per_warp;
  static_assert(rows * width / 2 <= kThreads);
  __shared__ float2 sines[width / 2];
  __shared__ float queries[rows][width],
      fresh[2][width];  // the new key and its value as the caches keep them
  __shared__ Parts<kWarps, rows, width> of_warps;
  __shared__ Parts<kMostCluster, rows, width> of_blocks;  // the first block's
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = lane % lanes * 8,
            group = blockIdx.y, share = a.heads / a.groups, first_row = blockIdx.z * rows,
            rank = blockIdx.x, parts = gridDim.x;
  const bool active = c < a.d;
  const std::int64_t stride = std::int64_t{a.groups} * a.d, column = std::int64_t{group} * a.d;
  let_next_start();
#if __CUDA_ARCH__ >= 900
  cluster_arrive();  // so that the first block is known to be there when it is stored to
#endif
  Stand stand = read_stand(a);
  make_sines(a, stand.position, sines);
  {
    const Keys keys(a, stand);
    for (int i = threadIdx.x; i < 2 * (keys.end - keys.begin); i += kThreads) {
      const std::int64_t at = (keys.begin + i / 2) * stride + column;
      const char* row = static_cast<const char*>(i % 2 ? a.v_cache : a.k_cache) + 2 * at;
      prefetch_line(row), prefetch_line(row + 2 * a.d - 1);
    }
  }
  after_previous();
  const Stand now = read_stand(a);
  auto key_at = [&](int k0, int u) { return k0 + u * groups + warp * per_warp + lane / lanes; };
  uint4 next_k[kUnroll], next_v[kUnroll];
  auto fetch = [&](const Keys& keys, int k0) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int key = key_at(k0, u);
      const std::int64_t at = key * stride + column + c;
      const bool valid = active && key < keys.end;
      next_k[u] = valid ? eight_at(a.k_cache, at, fast) : uint4{};
      next_v[u] = valid ? eight_at(a.v_cache, at, fast) : uint4{};
    }
  };
  // A thread has one pair of a query and, in the first block, one of the new key or value.
  const int half = a.d / 2, item = threadIdx.x, r_of = item / half, head = first_row + r_of;
  const bool asks = item < rows * half, adds = rank == 0 && item < 2 * half, value = r_of == 1;
  const Pair pair(a, item % half);
  float2 mine{}, its{};
  {
    const Keys keys(a, stand);
    fetch(keys, keys.begin);
    if (asks && head < share) mine = load_pair(a, a.q, group * share + head, pair);
    if (adds)
      its = load_pair(a, value ? a.v : a.k, group, value ? Pair(a, item % half, false) : pair);
  }
  if (!same(stand, now)) {
    stand = now;
    make_sines(a, stand.position, sines);
    const Keys keys(a, stand);
    fetch(keys, keys.begin);
  }
  const Keys keys(a, stand);
  const bool inside = stand.at >= 0 && stand.at < a.capacity;
  __syncthreads();
  if (asks) {
    const float2 y = pair.turns ? turned(a, mine, sines[item % half]) : mine;
    const float scale = a.scale * 1.44269504088896f;
    queries[r_of][pair.u] = y.x * scale, queries[r_of][pair.v] = y.y * scale;
  }
  if (adds) {
    const Pair to = value ? Pair(a, item % half, false) : pair;
    const float2 y = to.turns ? turned(a, its, sines[item % half]) : its;
    fresh[value][to.u] = rounded(y.x, a.cache_type),
    fresh[value][to.v] = rounded(y.y, a.cache_type);
    if (inside && blockIdx.z == 0) {
      void* cache = value ? a.v_cache : a.k_cache;
      const std::int64_t at = stand.at * stride + column;
      store_float(cache, a.cache_type, at + to.u, y.x),
          store_float(cache, a.cache_type, at + to.v, y.y);
    }
  }
  if (!inside && rank == 0 && group == 0 && blockIdx.z == 0 && threadIdx.x == 0)
    report_fault(faults, FaultKind::cache_row, stand.at, 1, a.capacity);
  __syncthreads();
  float q[rows][8];
#pragma unroll
  for (int r = 0; r < rows; ++r)
#pragma unroll
    for (int e = 0; e < 8; ++e) q[r][e] = active ? queries[r][c + e] : 0.0f;
  Softmax state[rows];
  auto score_of = [&](int r, const float(&k)[8]) {
    float dot = 0;
#pragma unroll
    for (int e = 0; e < 8; ++e) dot = fmaf(q[r][e], k[e], dot);
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
    return dot;
  };
  for (int k0 = keys.begin; k0 < keys.end; k0 += groups * kUnroll) {
    float k[kUnroll][8], v[kUnroll][8];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      widen_eight(next_k[u], a.cache_type, k[u]);
      widen_eight(next_v[u], a.cache_type, v[u]);
    }
    fetch(keys, k0 + groups * kUnroll);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)  // that row is being written
      if (key_at(k0, u) == stand.at)
#pragma unroll
        for (int e = 0; e < 8; ++e) k[u][e] = v[u][e] = 0;
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float score[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const float dot = score_of(r, k[u]);
        score[u] = key_at(k0, u) < keys.end && key_at(k0, u) != stand.at ? dot : -INFINITY;
      }
      take(state[r], score, v);
    }
  }
  if (rank == 0 && warp == 0 && stand.at >= stand.lo && stand.at <= min(stand.hi, a.context - 1) &&
      inside) {
    float k[8], v[1][8];
#pragma unroll
    for (int e = 0; e < 8; ++e)
      k[e] = active ? fresh[0][c + e] : 0.0f, v[0][e] = active ? fresh[1][c + e] : 0.0f;
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      const float dot = score_of(r, k);
      const float score[1] = {lane < lanes ? dot : -INFINITY};
      take(state[r], score, v);
    }
  }
#pragma unroll
  for (int r = 0; r < rows; ++r) {
#pragma unroll
    for (int step = lanes; step < 32; step *= 2) {
      const float top = __shfl_xor_sync(0xffffffffu, state[r].top, step),
                  total = __shfl_xor_sync(0xffffffffu, state[r].total, step);
      const float best = fmaxf(state[r].top, top), base = best == -INFINITY ? 0.0f : best;
      const float mine = exp2f(state[r].top - base), theirs = exp2f(top - base);
      state[r].top = best, state[r].total = state[r].total * mine + total * theirs;
#pragma unroll
      for (int e = 0; e < 8; ++e)
        state[r].out[e] =
            state[r].out[e] * mine + __shfl_xor_sync(0xffffffffu, state[r].out[e], step) * theirs;
    }
    if (lane < lanes) {
      of_warps.top[warp][r] = state[r].top, of_warps.total[warp][r] = state[r].total;
#pragma unroll
      for (int e = 0; e < 8; ++e) of_warps.out[warp][r][c + e] = state[r].out[e];
    }
  }
  __syncthreads();
#if __CUDA_ARCH__ >= 900
  cluster_wait();
#endif
  auto store = [&](int r, int at, float sum, float total) {
    if (first_row + r < share && at < a.d)
      store_float(a.o, a.type, (std::int64_t{group} * share + first_row + r) * a.d + at,
                  total > 0 ? sum / total : 0.0f);
  };
  for (int i = threadIdx.x; i < rows * width; i += kThreads) {
    const int r = i / width, at = i % width;
    float top, total;
    const float sum = merged(of_warps, kWarps, r, at, top, total);
    if (parts == 1) {
      store(r, at, sum, total);
      continue;
    }
#if __CUDA_ARCH__ >= 900
    store_at(0, &of_blocks.out[rank][r][at], sum);
    if (at == 0) {
      store_at(0, &of_blocks.top[rank][r], top);
      store_at(0, &of_blocks.total[rank][r], total);
    }
#endif
  }
  if (parts == 1) return;
#if __CUDA_ARCH__ >= 900
  cluster_arrive();
  if (rank != 0) return;
  cluster_wait();
  for (int i = threadIdx.x; i < rows * width; i += kThreads) {
    float top, total;
    const float sum = merged(of_blocks, parts, i / width, i % width, top, total);
    store(i / width, i % width, sum, total);
  }
#endif
}

template <int lanes, int rows>
void launch(const AttendStepCall& a, FaultSink faults, cudaStream_t stream) {
  const int share = a.heads / a.groups;
  int parts = kMostCluster;
  while (parts > 1 && (parts - 1) * kKeysPerBlock >= a.context) parts /= 2;
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(a.groups),
                  static_cast<unsigned>(ceil_div(share, rows)));
  auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  launch_overlapped("attend_step", attend_step_kernel<lanes, rows>,
                    Launch{grid, kThreads, 0, static_cast<unsigned>(parts)}, stream, a,
                    aligned(a.k_cache) && aligned(a.v_cache), faults);
}
template <int lanes>
void launch_rows(const AttendStepCall& a, FaultSink faults, cudaStream_t stream) {
  const int share = a.heads / a.groups;
  if (share == 1) return launch<lanes, 1>(a, faults, stream);
  share == 2 ? launch<lanes, 2>(a, faults, stream) : launch<lanes, 4>(a, faults, stream);
}

}  // namespace

void attend_step(const AttendStepCall& a, FaultSink faults, cudaStream_t stream) {
  a.d <= 64 ? launch_rows<8>(a, faults, stream) : launch_rows<16>(a, faults, stream);
}

}  // namespace supersonic::cuda
