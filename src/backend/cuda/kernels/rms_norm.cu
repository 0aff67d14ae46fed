#include "backend/cuda/kernels/rms_norm.h"

#include "backend/cuda/kernels/fault.h"
#include "backend/cuda/kernels/reduce.cuh"
#include "backend/cuda/kernels/scalar.h"

namespace supersonic::cuda {
namespace {

constexpr int kMostThreads = 512, kColumnThreads = 128, kWarpsOfBlock = 4;
// Vectors of a row that a thread holds: few where that takes the row, so that many rows are on
// their way; many in rows of one warp and in the widest.
constexpr int kFew = 2, kMany = 4;
constexpr std::int64_t kRowsOfChunk = 32, kMostChunks = 64;

template <class T>
constexpr int kVector = 16 / sizeof(T);  // elements of x that a thread loads at once

// W elements from p + i at once; the caller has checked alignment and d.
template <int W, class T>
__device__ inline Pack<float, W> load_floats(const T* p, std::int64_t i) {
  const Pack<T, W> x = *reinterpret_cast<const Pack<T, W>*>(p + i);
  Pack<float, W> r;
#pragma unroll
  for (int k = 0; k < W; ++k) r.v[k] = widen<float>(x.v[k]);
  return r;
}
template <int W, class T>
__device__ inline void store_floats(T* p, std::int64_t i, const Pack<float, W>& x) {
  Pack<T, W> r;
#pragma unroll
  for (int k = 0; k < W; ++k) r.v[k] = narrow<T>(x.v[k]);
  *reinterpret_cast<Pack<T, W>*>(p + i) = r;
}

// One row a group of blockDim.x threads, which keeps it in registers: kHeld vectors a thread.
// Groups of one warp share a block.
template <class T, class Wt, int kHeld>
__global__ void __launch_bounds__(kMostThreads) forward_held(RmsNormForward a) {
  constexpr int W = kVector<T>;
  __shared__ float scratch[32];
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;  // a whole warp, and then no other group of the block waits for it
  const T* x = static_cast<const T*>(a.x) + row * a.d;
  Pack<float, W> v[kHeld];
  float sum = 0;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const std::int64_t i = (threadIdx.x + std::int64_t{h} * blockDim.x) * W;
    if (i >= a.d) continue;
    v[h] = load_floats<W>(x, i);
#pragma unroll
    for (int k = 0; k < W; ++k) sum = fmaf(v[h].v[k], v[h].v[k], sum);
  }
  const float mean = reduce_block(sum, Plus{}, 0.0f, scratch) / static_cast<float>(a.d);
  const float rstd = 1.0f / sqrtf(mean + a.eps);
  if (a.rstd && threadIdx.x == 0) a.rstd[row] = rstd;
  if (!a.y) return;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const std::int64_t i = (threadIdx.x + std::int64_t{h} * blockDim.x) * W;
    if (i >= a.d) continue;
    const auto w = load_floats<W>(static_cast<const Wt*>(a.w), i);
#pragma unroll
    for (int k = 0; k < W; ++k) v[h].v[k] = v[h].v[k] * rstd * w.v[k];
    store_floats(static_cast<T*>(a.y) + row * a.d, i, v[h]);
  }
}

// dx = base + rstd · (w · dy - x · mean(w · dy · x) · rstd²)
template <class T, class Wt, bool kBase, int kHeld>
__global__ void __launch_bounds__(kMostThreads) backward_held(RmsNormBackward a) {
  constexpr int W = kVector<T>;
  __shared__ float scratch[32];
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;
  const T *x = static_cast<const T*>(a.x) + row * a.d,
          *dy = static_cast<const T*>(a.dy) + row * a.d;
  const T* base = static_cast<const T*>(a.base) + row * a.d;
  Pack<float, W> v[kHeld], g[kHeld];  // g: w · dy
  Pack<T, W> past[kHeld];             // of base
  float dot = 0;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const std::int64_t i = (threadIdx.x + std::int64_t{h} * blockDim.x) * W;
    if (i >= a.d) continue;
    v[h] = load_floats<W>(x, i);
    g[h] = load_floats<W>(dy, i);
    if constexpr (kBase) past[h] = *reinterpret_cast<const Pack<T, W>*>(base + i);
    const auto w = load_floats<W>(static_cast<const Wt*>(a.w), i);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      g[h].v[k] *= w.v[k];
      dot = fmaf(g[h].v[k], v[h].v[k], dot);
    }
  }
  const float rstd = a.rstd[row];
  const float c =
      -reduce_block(dot, Plus{}, 0.0f, scratch) / static_cast<float>(a.d) * rstd * rstd * rstd;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const std::int64_t i = (threadIdx.x + std::int64_t{h} * blockDim.x) * W;
    if (i >= a.d) continue;
#pragma unroll
    for (int k = 0; k < W; ++k) v[h].v[k] = fmaf(v[h].v[k], c, g[h].v[k] * rstd);
    if constexpr (kBase)
#pragma unroll
      for (int k = 0; k < W; ++k) v[h].v[k] += widen<float>(past[h].v[k]);
    store_floats(static_cast<T*>(a.dx) + row * a.d, i, v[h]);
  }
}

// What is odd, misaligned or very wide: an element at a time, the row read twice.
template <class T, class Wt>
__global__ void __launch_bounds__(kMostThreads) forward_loop(RmsNormForward a) {
  __shared__ float scratch[32];
  const T* x = static_cast<const T*>(a.x) + blockIdx.x * a.d;
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < a.d; i += blockDim.x) {
    const float v = widen<float>(x[i]);
    sum = fmaf(v, v, sum);
  }
  const float mean = reduce_block(sum, Plus{}, 0.0f, scratch) / static_cast<float>(a.d);
  const float rstd = 1.0f / sqrtf(mean + a.eps);
  if (a.rstd && threadIdx.x == 0) a.rstd[blockIdx.x] = rstd;
  if (!a.y) return;
  T* y = static_cast<T*>(a.y) + blockIdx.x * a.d;
  for (std::int64_t i = threadIdx.x; i < a.d; i += blockDim.x)
    y[i] = narrow<T>(widen<float>(x[i]) * rstd * widen<float>(static_cast<const Wt*>(a.w)[i]));
}

template <class T, class Wt>
__global__ void __launch_bounds__(kMostThreads) backward_loop(RmsNormBackward a) {
  __shared__ float scratch[32];
  const T *x = static_cast<const T*>(a.x) + blockIdx.x * a.d,
          *dy = static_cast<const T*>(a.dy) + blockIdx.x * a.d;
  const Wt* w = static_cast<const Wt*>(a.w);
  T* dx = static_cast<T*>(a.dx) + blockIdx.x * a.d;
  float dot = 0;
  for (std::int64_t i = threadIdx.x; i < a.d; i += blockDim.x)
    dot = fmaf(widen<float>(w[i]) * widen<float>(dy[i]), widen<float>(x[i]), dot);
  const float rstd = a.rstd[blockIdx.x];
  const float c =
      -reduce_block(dot, Plus{}, 0.0f, scratch) / static_cast<float>(a.d) * rstd * rstd * rstd;
  const T* base = a.base ? static_cast<const T*>(a.base) + blockIdx.x * a.d : nullptr;
  for (std::int64_t i = threadIdx.x; i < a.d; i += blockDim.x) {
    const float past = base ? widen<float>(base[i]) : 0.0f;
    dx[i] = narrow<T>(past +
                      fmaf(widen<float>(x[i]), c, widen<float>(w[i]) * widen<float>(dy[i]) * rstd));
  }
}

std::int64_t chunks_of(std::int64_t rows) {
  const std::int64_t chunks = (rows + kRowsOfChunk - 1) / kRowsOfChunk;
  return chunks < 1 ? 1 : chunks < kMostChunks ? chunks : kMostChunks;
}

// dw = sum over rows of dy · x · rstd: chunks of rows first (blockIdx.y), a thread a column.
template <class T>
__global__ void __launch_bounds__(kColumnThreads) weight_chunks(RmsNormBackward a) {
  const std::int64_t column = blockIdx.x * std::int64_t{kColumnThreads} + threadIdx.x;
  if (column >= a.d) return;
  float sum = 0;
  for (std::int64_t r = a.rows * blockIdx.y / gridDim.y; r < a.rows * (blockIdx.y + 1) / gridDim.y;
       ++r)
    sum = fmaf(widen<float>(static_cast<const T*>(a.dy)[r * a.d + column]) * a.rstd[r],
               widen<float>(static_cast<const T*>(a.x)[r * a.d + column]), sum);
  a.workspace[blockIdx.y * a.d + column] = sum;
}
__global__ void __launch_bounds__(kColumnThreads)
    add_chunks(RmsNormBackward a, std::int64_t chunks) {
  const std::int64_t column = blockIdx.x * std::int64_t{kColumnThreads} + threadIdx.x;
  if (column >= a.d) return;
  float sum = 0;
  for (std::int64_t c = 0; c < chunks; ++c) sum += a.workspace[c * a.d + column];
  a.dw[column] = sum;
}

bool aligned(const void* p, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

// The group of threads that holds a row of `vectors` in registers, and how many vectors each of
// them; none (0, 0): too wide.
struct Held {
  dim3 block;
  int vectors;
};
Held held_rows(std::int64_t vectors) {
  if (vectors <= 32 * kMany) return {dim3(32, kWarpsOfBlock), kMany};
  for (unsigned threads = 128; threads <= kMostThreads; threads *= 2)
    if (vectors <= std::int64_t{threads} * kFew) return {dim3(threads, 1), kFew};
  if (vectors <= std::int64_t{kMostThreads} * kMany) return {dim3(kMostThreads, 1), kMany};
  return {dim3(0, 0), 0};
}

// launch(block of the held kernel) where it takes the row, else loop(threads).
template <class T, class Wt, class LaunchHeld, class Loop>
void choose(std::int64_t d, bool aligned_rows, const void* w, LaunchHeld&& held, Loop&& loop) {
  constexpr int W = kVector<T>;
  const bool fits = d % W == 0 && aligned_rows && aligned(w, W * sizeof(Wt));
  if (const Held rows = held_rows(d / W); fits && rows.vectors) return held(rows);
  unsigned threads = 32;
  while (threads < d && threads < kMostThreads) threads *= 2;
  loop(threads);
}

unsigned blocks_of(std::int64_t rows, dim3 block) {
  return static_cast<unsigned>((rows + block.y - 1) / block.y);
}

template <class T, class Wt, bool kBase>
void backward(const RmsNormBackward& a, const Held& held, cudaStream_t stream) {
  const unsigned blocks = blocks_of(a.rows, held.block);
  held.vectors == kFew ? backward_held<T, Wt, kBase, kFew><<<blocks, held.block, 0, stream>>>(a)
                       : backward_held<T, Wt, kBase, kMany><<<blocks, held.block, 0, stream>>>(a);
}

// launch(TypeTag of x, TypeTag of w) for the four combinations.
template <class F>
void with_types(DType x, DType w, F&& f) {
  if (x == DType::bf16)
    return w == DType::bf16 ? f(TypeTag<bf16>{}, TypeTag<bf16>{})
                            : f(TypeTag<bf16>{}, TypeTag<float>{});
  w == DType::bf16 ? f(TypeTag<float>{}, TypeTag<bf16>{}) : f(TypeTag<float>{}, TypeTag<float>{});
}

}  // namespace

std::size_t rms_norm_grad_workspace(std::int64_t rows, std::int64_t d) {
  return static_cast<std::size_t>(chunks_of(rows) * d) * sizeof(float);
}

void rms_norm_forward(const RmsNormForward& a, cudaStream_t stream) {
  if (a.rows == 0) return;
  with_types(a.type, a.w_type, [&](auto x, auto w) {
    using T = typename decltype(x)::type;
    using Wt = typename decltype(w)::type;
    choose<T, Wt>(
        a.d, aligned(a.x, 16) && aligned(a.y, 16), a.w,
        [&](const Held& held) {
          const unsigned blocks = blocks_of(a.rows, held.block);
          held.vectors == kFew ? forward_held<T, Wt, kFew><<<blocks, held.block, 0, stream>>>(a)
                               : forward_held<T, Wt, kMany><<<blocks, held.block, 0, stream>>>(a);
        },
        [&](unsigned threads) {
          forward_loop<T, Wt><<<static_cast<unsigned>(a.rows), threads, 0, stream>>>(a);
        });
  });
  check_launch("rms_norm");
}

void rms_norm_backward(const RmsNormBackward& a, cudaStream_t stream) {
  const std::int64_t chunks = chunks_of(a.rows);
  const dim3 columns(static_cast<unsigned>((a.d + kColumnThreads - 1) / kColumnThreads),
                     static_cast<unsigned>(chunks));
  // First the gradient of w, since dx may overwrite dy.
  if (a.dw && a.d) {
    if (a.type == DType::bf16)
      weight_chunks<bf16><<<columns, kColumnThreads, 0, stream>>>(a);
    else
      weight_chunks<float><<<columns, kColumnThreads, 0, stream>>>(a);
    check_launch("rms_norm_grad");
    add_chunks<<<columns.x, kColumnThreads, 0, stream>>>(a, chunks);
    check_launch("rms_norm_grad");
  }
  if (!a.dx || a.rows == 0) return;
  with_types(a.type, a.w_type, [&](auto x, auto w) {
    using T = typename decltype(x)::type;
    using Wt = typename decltype(w)::type;
    choose<T, Wt>(
        a.d, aligned(a.x, 16) && aligned(a.dy, 16) && aligned(a.dx, 16) && aligned(a.base, 16), a.w,
        [&](const Held& held) {
          a.base ? backward<T, Wt, true>(a, held, stream) : backward<T, Wt, false>(a, held, stream);
        },
        [&](unsigned threads) {
          backward_loop<T, Wt><<<static_cast<unsigned>(a.rows), threads, 0, stream>>>(a);
        });
  });
  check_launch("rms_norm_grad");
}

}  // namespace supersonic::cuda
