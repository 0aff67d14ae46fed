// Attention backward in fp32 arithmetic. Two kernels over the same scores, each with its gradients
// in registers from the first tile to the store, so that nothing is added by two threads: dq with
// 32 (or 16) queries of a head standing still, and dk, dv with as many keys of a kv head, for which
// all query heads of the group pass by. Four threads share a row, as in forward.
#include "backend/cuda/kernels/attention_common.cuh"

namespace supersonic::cuda {
namespace {

template <int max_d, int rows>
__global__ void __launch_bounds__(rows * 4, 2)
    query_kernel(const __grid_constant__ AttentionBackward a, const float* delta) {
  constexpr int threads = rows * 4;
  extern __shared__ __align__(16) float shared[];
  const AttentionShape& s = a.shape;
  const int pitch = s.d + 4, row = threadIdx.x / 4, part = threadIdx.x % 4;
  float *q = shared, *d_o = q + rows * pitch, *k = d_o + rows * pitch, *v = k + rows * pitch,
        *ds = v + rows * pitch;
  const int head = blockIdx.y, group = head / (s.heads / s.kv_heads), first = blockIdx.x * rows;
  const std::int64_t q_head = static_cast<std::int64_t>(head) * s.d,
                     kv_head = static_cast<std::int64_t>(group) * s.d;
  const KeyRange mine = row_range(s, first + row), all = block_range<rows>(s, first);
  load_rows<rows, threads>(q, a.q, a.type, a.q_stride, q_head, s.d, first, s.queries);
  load_rows<rows, threads>(d_o, a.d_o, a.type, a.do_stride, q_head, s.d, first, s.queries);
  const bool valid = first + row < s.queries;
  const std::int64_t stat = static_cast<std::int64_t>(first + row) * s.heads + head;
  const float lse = valid ? a.lse[stat] : 0, row_delta = valid ? delta[stat] : 0;
  float4 dq[max_d / 16] = {};
  for (int k0 = all.lo <= all.hi ? all.lo / rows * rows : 0; k0 <= all.hi; k0 += rows) {
    __syncthreads();
    load_rows<rows, threads>(k, a.k, a.type, a.k_stride, kv_head, s.d, k0, s.keys);
    load_rows<rows, threads>(v, a.v, a.type, a.v_stride, kv_head, s.d, k0, s.keys);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < rows / 4; ++j) {
      const int key = part + 4 * j;
      float g = 0;
      if (k0 + key >= mine.lo && k0 + key <= mine.hi) {
        const float weight = expf(s.scale * dot_rows(q + row * pitch, k + key * pitch, s.d) - lse);
        g = weight * (dot_rows(d_o + row * pitch, v + key * pitch, s.d) - row_delta) * s.scale;
      }
      ds[row * (rows + 1) + key] = g;
    }
    __syncwarp();
    for (int key = 0; key < rows; ++key) {
      const float g = ds[row * (rows + 1) + key];
#pragma unroll
      for (int j = 0; j < max_d / 16; ++j)
        if (part * 4 + 16 * j < s.d) add_scaled(dq[j], g, k + key * pitch + part * 4 + 16 * j);
    }
  }
  if (!valid) return;
  const std::int64_t at = (first + row) * a.dq_stride + q_head;
#pragma unroll
  for (int j = 0; j < max_d / 16; ++j)
    if (part * 4 + 16 * j < s.d) store_four(a.dq, a.type, at + part * 4 + 16 * j, dq[j], 1);
}

template <int max_d, int rows>
__global__ void __launch_bounds__(rows * 4, 2)
    key_kernel(const __grid_constant__ AttentionBackward a, const float* delta) {
  constexpr int threads = rows * 4;
  extern __shared__ __align__(16) float shared[];
  const AttentionShape& s = a.shape;
  const int pitch = s.d + 4, row = threadIdx.x / 4, part = threadIdx.x % 4;
  float *q = shared, *d_o = q + rows * pitch, *k = d_o + rows * pitch, *v = k + rows * pitch;
  float *p = v + rows * pitch, *ds = p + rows * (rows + 1);
  const int group = blockIdx.y, share = s.heads / s.kv_heads, first = blockIdx.x * rows,
            key = first + row;
  const std::int64_t kv_head = static_cast<std::int64_t>(group) * s.d;
  load_rows<rows, threads>(k, a.k, a.type, a.k_stride, kv_head, s.d, first, s.keys);
  load_rows<rows, threads>(v, a.v, a.type, a.v_stride, kv_head, s.d, first, s.keys);
  float4 dk[max_d / 16] = {}, dv[max_d / 16] = {};
  for (int q0 = 0; q0 < s.queries; q0 += rows) {
    const KeyRange range = block_range<rows>(s, q0);
    if (range.lo >= first + rows || range.hi < first) continue;
    for (int head = group * share; head < (group + 1) * share; ++head) {
      const std::int64_t q_head = static_cast<std::int64_t>(head) * s.d;
      __syncthreads();
      load_rows<rows, threads>(q, a.q, a.type, a.q_stride, q_head, s.d, q0, s.queries);
      load_rows<rows, threads>(d_o, a.d_o, a.type, a.do_stride, q_head, s.d, q0, s.queries);
      __syncthreads();
#pragma unroll
      for (int j = 0; j < rows / 4; ++j) {
        const int query = part + 4 * j;
        const KeyRange seen = row_range(s, q0 + query);
        float weight = 0, g = 0;
        if (key >= seen.lo && key <= seen.hi) {
          const std::int64_t stat = static_cast<std::int64_t>(q0 + query) * s.heads + head;
          weight = expf(s.scale * dot_rows(q + query * pitch, k + row * pitch, s.d) - a.lse[stat]);
          g = weight * (dot_rows(d_o + query * pitch, v + row * pitch, s.d) - delta[stat]) *
              s.scale;
        }
        p[row * (rows + 1) + query] = weight;
        ds[row * (rows + 1) + query] = g;
      }
      __syncwarp();
      for (int query = 0; query < rows; ++query) {
        const float weight = p[row * (rows + 1) + query], g = ds[row * (rows + 1) + query];
#pragma unroll
        for (int j = 0; j < max_d / 16; ++j)
          if (part * 4 + 16 * j < s.d) {
            add_scaled(dv[j], weight, d_o + query * pitch + part * 4 + 16 * j);
            add_scaled(dk[j], g, q + query * pitch + part * 4 + 16 * j);
          }
      }
    }
  }
  if (key >= s.keys) return;
#pragma unroll
  for (int j = 0; j < max_d / 16; ++j) {
    const int c = part * 4 + 16 * j;
    if (c >= s.d) continue;
    if (a.dk) store_four(a.dk, a.type, key * a.dk_stride + kv_head + c, dk[j], 1);
    if (a.dv) store_four(a.dv, a.type, key * a.dv_stride + kv_head + c, dv[j], 1);
  }
}

__global__ void __launch_bounds__(128)
    delta_kernel(const __grid_constant__ AttentionBackward a, float* delta) {
  const AttentionShape& s = a.shape;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (at >= static_cast<std::int64_t>(s.queries) * s.heads) return;
  const std::int64_t row = at / s.heads, offset = at % s.heads * s.d;
  float sum = 0;
  for (int c = static_cast<int>(threadIdx.x) % 32; c < s.d; c += 32)
    sum += load_float(a.o, a.type, row * a.o_stride + offset + c) *
           load_float(a.d_o, a.type, row * a.do_stride + offset + c);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) delta[at] = sum;
}

template <int max_d, int rows>
void launch(const AttentionBackward& a, const float* delta, cudaStream_t stream) {
  auto bytes = [](int d) {
    return static_cast<std::size_t>(4 * rows * (d + 4) + 2 * rows * (rows + 1)) * 4;
  };
  static const bool allowed = (allow_shared(query_kernel<max_d, rows>, bytes(max_d)),
                               allow_shared(key_kernel<max_d, rows>, bytes(max_d)), true);
  static_cast<void>(allowed);
  if (a.dq) {
    const dim3 grid(static_cast<unsigned>(ceil_div(a.shape.queries, rows)),
                    static_cast<unsigned>(a.shape.heads));
    query_kernel<max_d, rows><<<grid, rows * 4, bytes(a.shape.d), stream>>>(a, delta);
    check_launch("attention_backward_f32");
  }
  if (a.dk || a.dv) {
    const dim3 grid(static_cast<unsigned>(ceil_div(a.shape.keys, rows)),
                    static_cast<unsigned>(a.shape.kv_heads));
    key_kernel<max_d, rows><<<grid, rows * 4, bytes(a.shape.d), stream>>>(a, delta);
    check_launch("attention_backward_f32");
  }
}

}  // namespace

void attention_delta(const AttentionBackward& a, float* delta, cudaStream_t stream) {
  const std::int64_t rows = static_cast<std::int64_t>(a.shape.queries) * a.shape.heads;
  delta_kernel<<<static_cast<unsigned>(ceil_div(rows, 4)), 128, 0, stream>>>(a, delta);
  check_launch("attention_delta");
}

void attention_backward_f32(const AttentionBackward& a, const float* delta, cudaStream_t stream) {
  if (a.shape.d <= 64) return launch<64, 32>(a, delta, stream);
  if (a.shape.d <= 128) return launch<128, 16>(a, delta, stream);
  launch<256, 16>(a, delta, stream);
}

}  // namespace supersonic::cuda
