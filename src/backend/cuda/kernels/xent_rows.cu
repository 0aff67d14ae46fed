// A block owns a row of logits. First pass: each thread's maximum and sum of exponentials, the sum
// in double (a gradient is p - 1 where p is nearly 1, and the last bit of an fp32 logarithm would
// show in it); second pass: the gradient in place. Bytes moved: two reads and a write of the row,
// the second read from the L2 cache where the rows in flight fit into it.
#include "backend/cuda/kernels/xent_rows.h"

#include "backend/cuda/kernels/device.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32, kListThreads = 1024;

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

template <class T>
__global__ void __launch_bounds__(256)
    gather_kernel(const T* x, std::int64_t d, const std::int32_t* kept, const std::int32_t* count,
                  std::int32_t first, T* to) {
  if (first + static_cast<int>(blockIdx.x) >= *count) return;
  const T* from = x + kept[first + blockIdx.x] * d;
  for (std::int64_t i = threadIdx.x; i < d; i += 256) to[blockIdx.x * d + i] = from[i];
}

template <class T>
__global__ void __launch_bounds__(256)
    scatter_kernel(const float* sums, std::int64_t d, const std::int32_t* kept,
                   const std::int32_t* count, std::int32_t first, T* dx) {
  if (first + static_cast<int>(blockIdx.x) >= *count) return;
  T* to = dx + kept[first + blockIdx.x] * d;
  for (std::int64_t i = threadIdx.x; i < d; i += 256)
    to[i] = from_float<T>(sums[blockIdx.x * d + i]);
}

// Adds what two threads know of a row: maxima and sums of exp(x - maximum).
__device__ inline void join(float& top, double& sum, float other_top, double other_sum) {
  const float best = fmaxf(top, other_top), base = best == -INFINITY ? 0.0f : best;
  sum = sum * exp(static_cast<double>(top) - base) +
        other_sum * exp(static_cast<double>(other_top) - base);
  top = best;
}

// Maximum and sum of the whole row, in every thread.
__device__ void join_block(float& top, double& sum) {
  __shared__ float tops[kWarps];
  __shared__ double sums[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int step = 16; step > 0; step /= 2) {
    const float other_top = __shfl_xor_sync(0xffffffffu, top, step);
    const double other_sum = __shfl_xor_sync(0xffffffffu, sum, step);
    join(top, sum, other_top, other_sum);
  }
  if (lane == 0) tops[warp] = top, sums[warp] = sum;
  __syncthreads();
  top = tops[0], sum = sums[0];
  for (int w = 1; w < kWarps; ++w) join(top, sum, tops[w], sums[w]);
}

__global__ void __launch_bounds__(kThreads) softmax_kernel(const __grid_constant__ SoftmaxXent s) {
  const std::int32_t position = s.first + static_cast<std::int32_t>(blockIdx.x);
  if (position >= *s.count) return;
  float* row = s.logits + blockIdx.x * s.vocab;
  const std::int32_t label = s.labels[s.kept[position]];
  float top = -INFINITY;
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < s.vocab; i += kThreads) {
    const float x = row[i];
    if (x > top) {
      sum *= exp(static_cast<double>(top) - x);
      top = x;
    }
    sum += expf(x - top);
  }
  join_block(top, sum);
  const double lse = top + log(sum);
  const float target = row[label];
  if (threadIdx.x == 0) s.losses[position] = lse - target;
  if (!s.gradient) return;
  const float scale = *s.scale, factor = static_cast<float>(scale / sum);
  const auto at_label =
      static_cast<float>(expm1(target - lse) * scale);  // without the cancellation of p - 1
  auto* narrow_row = reinterpret_cast<__nv_bfloat16*>(row);
  // Narrow values go where wider ones of this strip or an earlier one were: once all of the strip
  // are read.
  for (std::int64_t base = 0; base < s.vocab; base += kThreads) {
    const std::int64_t i = base + threadIdx.x;
    float g = 0;
    if (i < s.vocab) g = i == label ? at_label : expf(row[i] - top) * factor;
    __syncthreads();
    if (i < s.vocab) {
      if (s.gradient_bf16)
        narrow_row[i] = __float2bfloat16_rn(g);
      else
        row[i] = g;
    }
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

void gather_rows(const void* x, DType type, std::int64_t d, const std::int32_t* kept,
                 const std::int32_t* count, std::int32_t first, std::int32_t chunk, void* to,
                 cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(chunk);
  if (size_of(type) == 4) {
    gather_kernel<<<blocks, 256, 0, stream>>>(static_cast<const float*>(x), d, kept, count, first,
                                              static_cast<float*>(to));
  } else {
    gather_kernel<<<blocks, 256, 0, stream>>>(static_cast<const std::uint16_t*>(x), d, kept, count,
                                              first, static_cast<std::uint16_t*>(to));
  }
  check_launch("gather_rows");
}

void scatter_rows(const float* sums, std::int64_t d, const std::int32_t* kept,
                  const std::int32_t* count, std::int32_t first, std::int32_t chunk, void* dx,
                  DType type, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(chunk);
  if (type == DType::f32) {
    scatter_kernel<<<blocks, 256, 0, stream>>>(sums, d, kept, count, first,
                                               static_cast<float*>(dx));
  } else {
    scatter_kernel<<<blocks, 256, 0, stream>>>(sums, d, kept, count, first,
                                               static_cast<__nv_bfloat16*>(dx));
  }
  check_launch("scatter_rows");
}

void softmax_xent(const SoftmaxXent& s, cudaStream_t stream) {
  softmax_kernel<<<static_cast<unsigned>(s.chunk), kThreads, 0, stream>>>(s);
  check_launch("softmax_xent");
}

void sum_losses(const double* losses, const std::int32_t* count, const float* scale, float* loss,
                cudaStream_t stream) {
  sum_kernel<<<1, kThreads, 0, stream>>>(losses, count, scale, loss);
  check_launch("sum_losses");
}

}  // namespace supersonic::cuda
