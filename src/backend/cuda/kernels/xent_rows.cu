// A block owns a row. Of a slice of logits it holds the row's part in registers: one read, and one
// write of the exponentials. Totals are kept in double: a loss is their logarithm less a logit, and
// the last bit of an fp32 logarithm would show in a small one. Limit: the memory, or the L2 cache
// where the slice's logits fit into it.
#include "backend/cuda/kernels/xent_rows.h"

#include "backend/cuda/kernels/device.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32, kListThreads = 1024;
constexpr int kHeld = kMostSliceWords / (4 * kThreads);

__global__ void __launch_bounds__(kListThreads)
    list_kernel(const std::int32_t* labels, std::int64_t rows, std::int64_t vocab,
                std::int32_t* kept, std::int32_t* count, FaultSink faults) {
  __shared__ int warp_counts[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int before = 0;  // kept rows of the passes so far
  for (std::int64_t base = 0; base < rows; base += kListThreads) {
    const std::int64_t row = base + threadIdx.x;
    const int label = row < rows ? labels[row] : -1;
    if (label >= vocab) report_fault(faults, FaultKind::label, label, row, vocab);
    const bool keep = label >= 0 && label < vocab;
    const unsigned votes = __ballot_sync(0xffffffffu, keep);
    __syncthreads();
    if (lane == 0) warp_counts[warp] = __popc(votes);
    __syncthreads();
    int at = before;
    for (int w = 0; w < 32; ++w) {
      if (w < warp) at += warp_counts[w];
      before += warp_counts[w];
    }
    if (keep) kept[at + __popc(votes & ((1u << lane) - 1))] = static_cast<std::int32_t>(row);
  }
  if (threadIdx.x == 0) *count = before;
}

template <class T, class To>
__global__ void __launch_bounds__(256)
    gather_kernel(const T* x, std::int64_t d, const std::int32_t* labels,
                  const __grid_constant__ ChunkRows r, To* to) {
  const bool live = r.first + static_cast<int>(blockIdx.x) < *r.count;
  const std::int64_t row = live ? r.kept[r.first + blockIdx.x] : 0;
  if (threadIdx.x == 0) {
    r.label[blockIdx.x] = live ? labels[row] : 0;
    r.top[blockIdx.x] = -INFINITY;
    r.sum[blockIdx.x] = 0;
  }
  if (!live) return;
  const T* from = x + row * d;
  for (std::int64_t i = threadIdx.x; i < d; i += 256)
    to[blockIdx.x * d + i] = from_float<To>(to_float(from[i]));
}

template <class T>
__global__ void __launch_bounds__(256)
    finish_kernel(const float* sums, const float* label_words, std::int64_t d,
                  const __grid_constant__ ChunkRows r,
                  const __grid_constant__ FinishedRows finished) {
  auto* dx = static_cast<T*>(finished.dx);
  const std::int32_t position = r.first + static_cast<std::int32_t>(blockIdx.x);
  if (position >= *r.count) return;
  const double lse = r.top[blockIdx.x] + log(r.sum[blockIdx.x]), rise = r.target[blockIdx.x] - lse;
  if (threadIdx.x == 0) {
    finished.losses[position] = -rise;
    if (finished.lse) finished.lse[r.kept[position]] = static_cast<float>(lse);
    if (finished.nll) finished.nll[r.kept[position]] = static_cast<float>(-rise);
  }
  if (!dx) return;
  const float scale = *r.scale, others = static_cast<float>(scale / r.sum[blockIdx.x]),
              own = static_cast<float>(scale * expm1(rise));  // p - 1 without cancellation
  const std::int64_t at = blockIdx.x * d;
  T* to = dx + r.kept[position] * d;
  for (std::int64_t i = threadIdx.x; i < d; i += 256)
    to[i] = from_float<T>(others * sums[at + i] + own * label_words[at + i]);
}

__device__ inline double warp_sum_double(double x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__device__ inline void store_four(const SliceOfWords& s, std::int64_t row, int at, bool whole,
                                  const float (&v)[4]) {
  float* wide = s.logits + row * s.ld + at;
  auto* narrow = reinterpret_cast<__nv_bfloat16*>(s.logits) + row * 2 * s.ld + at;
  if (whole && s.gradient_bf16) {
    *reinterpret_cast<uint2*>(narrow) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
  } else if (whole) {
    *reinterpret_cast<float4*>(wide) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    for (int e = 0; e < 4 && at + e < s.words; ++e) {
      if (s.gradient_bf16)
        narrow[e] = __float2bfloat16_rn(v[e]);
      else
        wide[e] = v[e];
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    softmax_kernel(const __grid_constant__ SliceOfWords s, const __grid_constant__ ChunkRows r) {
  const int row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (r.first + row >= *r.count) return;
  __shared__ float tops[kWarps];
  __shared__ double sums[kWarps];
  float v[kHeld][4];
  const float before = r.top[row];
  const int label = r.label[row] - s.word;
  float top = before;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    const float* from = s.logits + row * s.ld + at;
    if (at + 4 <= s.words) {
      const float4 four = *reinterpret_cast<const float4*>(from);
      v[i][0] = four.x, v[i][1] = four.y, v[i][2] = four.z, v[i][3] = four.w;
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) v[i][e] = at + e < s.words ? from[e] : -INFINITY;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) top = fmaxf(top, v[i][e]);
  }
  top = warp_max(top);
  if (lane == 0) tops[warp] = top;
  __syncthreads();  // and all of the row is read
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, tops[w]);
  const float base = top == -INFINITY ? 0.0f : top;
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (at >= s.words) break;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool own = at + e == label;
      if (own) r.target[row] = v[i][e];
      v[i][e] = expf(v[i][e] - base);
      sum += v[i][e];
      if (own) v[i][e] = 0;
    }
    if (s.gradient) store_four(s, row, at, at + 4 <= s.words, v[i]);
  }
  sum = warp_sum_double(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w];
  const double decay = exp(static_cast<double>(before) - base);
  r.sum[row] = r.sum[row] * decay + sum;
  r.top[row] = top;
  r.decay[row] = static_cast<float>(decay);
}

// As softmax_kernel, of rows whose total is known.
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const __grid_constant__ SliceOfWords s, const __grid_constant__ ChunkRows r,
                    const __grid_constant__ KnownRows known) {
  const int row = blockIdx.x;
  const bool live = r.first + row < *r.count;
  const std::int32_t from_row = live ? r.kept[r.first + row] : 0;
  const float lse = live ? known.lse[from_row] : 0.0f, factor = *r.scale * *known.dloss;
  const int label = live ? r.label[row] - s.word : -1;
  const float own = live ? factor * expm1f(-known.nll[from_row]) : 0.0f;
  float v[kHeld][4];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    const float* from = s.logits + row * s.ld + at;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      v[i][e] = 0;
      if (live && at + e < s.words) v[i][e] = at + e == label ? own : factor * expf(from[e] - lse);
    }
  }
  __syncthreads();  // all of the row is read
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (at < s.words) store_four(s, row, at, at + 4 <= s.words, v[i]);
  }
}

__global__ void __launch_bounds__(kThreads)
    sum_kernel(const double* losses, const std::int32_t* count, const float* scale, float* loss) {
  __shared__ double sums[kThreads];
  double sum = 0;
  for (int i = threadIdx.x; i < *count; i += kThreads) sum += losses[i];
  sums[threadIdx.x] = sum;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < width) sums[threadIdx.x] += sums[threadIdx.x + width];
  }
  if (threadIdx.x == 0) *loss = static_cast<float>(sums[0] * *scale);
}

}  // namespace

void list_labelled(const std::int32_t* labels, std::int64_t rows, std::int64_t vocab,
                   std::int32_t* kept, std::int32_t* count, FaultSink faults, cudaStream_t stream) {
  list_kernel<<<1, kListThreads, 0, stream>>>(labels, rows, vocab, kept, count, faults);
  check_launch("list_labelled");
}

void gather_rows(const void* x, DType type, std::int64_t d, const std::int32_t* labels,
                 const ChunkRows& rows, void* to, DType to_type, cudaStream_t stream) {
  auto launch = [&](auto* from, auto* out) {
    gather_kernel<<<static_cast<unsigned>(rows.chunk), 256, 0, stream>>>(from, d, labels, rows,
                                                                         out);
  };
  const auto* wide = static_cast<const float*>(x);
  const auto* narrow = static_cast<const __nv_bfloat16*>(x);
  auto* to_wide = static_cast<float*>(to);
  auto* to_narrow = static_cast<__nv_bfloat16*>(to);
  if (type == DType::f32) {
    to_type == DType::f32 ? launch(wide, to_wide) : launch(wide, to_narrow);
  } else {
    to_type == DType::f32 ? launch(narrow, to_wide) : launch(narrow, to_narrow);
  }
  check_launch("gather_rows");
}

void softmax_slice(const SliceOfWords& slice, const ChunkRows& rows, cudaStream_t stream) {
  softmax_kernel<<<static_cast<unsigned>(rows.chunk), kThreads, 0, stream>>>(slice, rows);
  check_launch("softmax_slice");
}

void gradient_slice(const SliceOfWords& slice, const ChunkRows& rows, const KnownRows& known,
                    cudaStream_t stream) {
  gradient_kernel<<<static_cast<unsigned>(rows.chunk), kThreads, 0, stream>>>(slice, rows, known);
  check_launch("gradient_slice");
}

void finish_rows(const float* sums, const float* label_words, std::int64_t d, const ChunkRows& rows,
                 const FinishedRows& to, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(rows.chunk);
  if (to.type == DType::f32)
    finish_kernel<float><<<blocks, 256, 0, stream>>>(sums, label_words, d, rows, to);
  else
    finish_kernel<__nv_bfloat16><<<blocks, 256, 0, stream>>>(sums, label_words, d, rows, to);
  check_launch("finish_rows");
}

void sum_losses(const double* losses, const std::int32_t* count, const float* scale, float* loss,
                cudaStream_t stream) {
  sum_kernel<<<1, kThreads, 0, stream>>>(losses, count, scale, loss);
  check_launch("sum_losses");
}

}  // namespace supersonic::cuda
