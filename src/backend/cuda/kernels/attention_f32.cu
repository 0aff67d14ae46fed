// Attention forward in fp32 arithmetic, for any of the types and head sizes: the path of fp32
// tensors, and of what the tensor-core kernel does not take. A block of 128 threads owns 32 queries
// of one head; four threads share a row: each has every fourth score of a tile of keys, and every
// fourth group of four columns of the output. Keys and values take turns in one tile. Limit: fp32
// FMA; three and a half of them to a 16-byte shared load.
#include "backend/cuda/kernels/attention_common.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 128, kQueries = 32;

template <int max_d, int keys>
__global__ void __launch_bounds__(kThreads, 2)
    forward_kernel(const __grid_constant__ AttentionForward a) {
  extern __shared__ __align__(16) float shared[];
  const AttentionShape& s = a.shape;
  const int pitch = s.d + 4, row = threadIdx.x / 4, part = threadIdx.x % 4;
  float *q = shared, *tile = q + kQueries * pitch, *p = tile + keys * pitch;  // p (32, keys + 1)
  const int head = blockIdx.y, group = head / (s.heads / s.kv_heads), first = blockIdx.x * kQueries;
  const std::int64_t q_head = static_cast<std::int64_t>(head) * s.d,
                     kv_head = static_cast<std::int64_t>(group) * s.d;
  const KeyRange mine = row_range(s, first + row), all = block_range<kQueries>(s, first);
  load_rows<kQueries, kThreads>(q, a.q, a.type, a.q_stride, q_head, s.d, first, s.queries);
  float4 out[max_d / 16] = {};
  float top = -INFINITY, total = 0;
  for (int k0 = all.lo <= all.hi ? all.lo / keys * keys : 0; k0 <= all.hi; k0 += keys) {
    __syncthreads();
    load_rows<keys, kThreads>(tile, a.k, a.kv_type, a.k_stride, kv_head, s.d, k0, s.keys);
    __syncthreads();
    float score[keys / 4], best = top;
#pragma unroll
    for (int j = 0; j < keys / 4; ++j) {
      const int key = part + 4 * j;
      const bool seen = k0 + key >= mine.lo && k0 + key <= mine.hi;
      score[j] = seen ? s.scale * dot_rows(q + row * pitch, tile + key * pitch, s.d) : -INFINITY;
      best = fmaxf(best, score[j]);
    }
    best = max_of_four(best);
    const float base = best == -INFINITY ? 0.0f : best, fade = expf(top - base);
    float sum = 0;
#pragma unroll
    for (int j = 0; j < keys / 4; ++j) {
      const float e = expf(score[j] - base);
      p[row * (keys + 1) + part + 4 * j] = e;
      sum += e;
    }
    total = total * fade + sum_of_four(sum);
    top = best;
#pragma unroll
    for (int j = 0; j < max_d / 16; ++j)
      out[j].x *= fade, out[j].y *= fade, out[j].z *= fade, out[j].w *= fade;
    __syncthreads();
    load_rows<keys, kThreads>(tile, a.v, a.kv_type, a.v_stride, kv_head, s.d, k0, s.keys);
    __syncthreads();
    for (int key = 0; key < keys; ++key) {
      const float weight = p[row * (keys + 1) + key];
#pragma unroll
      for (int j = 0; j < max_d / 16; ++j)
        if (part * 4 + 16 * j < s.d)
          add_scaled(out[j], weight, tile + key * pitch + part * 4 + 16 * j);
    }
  }
  if (first + row >= s.queries) return;
  const float inverse = total > 0 ? 1 / total : 0;
  const std::int64_t at = (first + row) * a.o_stride + q_head;
#pragma unroll
  for (int j = 0; j < max_d / 16; ++j)
    if (part * 4 + 16 * j < s.d) store_four(a.o, a.type, at + part * 4 + 16 * j, out[j], inverse);
  if (a.lse && part == 0)
    a.lse[static_cast<std::int64_t>(first + row) * s.heads + head] =
        total > 0 ? top + logf(total) : -INFINITY;
}

template <int max_d, int keys>
void launch(const AttentionForward& a, cudaStream_t stream) {
  const std::size_t bytes =
      static_cast<std::size_t>((kQueries + keys) * (a.shape.d + 4) + kQueries * (keys + 1)) * 4;
  static const bool allowed =
      (allow_shared(forward_kernel<max_d, keys>,
                    ((kQueries + keys) * (max_d + 4) + kQueries * (keys + 1)) * 4),
       true);
  static_cast<void>(allowed);
  const dim3 grid(static_cast<unsigned>(ceil_div(a.shape.queries, kQueries)),
                  static_cast<unsigned>(a.shape.heads));
  forward_kernel<max_d, keys><<<grid, kThreads, bytes, stream>>>(a);
  check_launch("attention_forward_f32");
}

}  // namespace

void attention_forward_f32(const AttentionForward& a, cudaStream_t stream) {
  if (a.shape.d <= 64) return launch<64, 32>(a, stream);
  if (a.shape.d <= 128) return launch<128, 32>(a, stream);
  launch<256, 16>(a, stream);
}

}  // namespace supersonic::cuda
