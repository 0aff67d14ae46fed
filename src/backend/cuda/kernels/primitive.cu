#include "backend/cuda/kernels/primitive.h"

#include "backend/cuda/kernels/scalar.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 256;

// Elementwise launches: each thread strides through the array by the width of the grid.
unsigned blocks_for(std::int64_t n) {
  const std::int64_t blocks = (n + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 4096 ? blocks : 4096);
}
__device__ inline std::int64_t thread_index() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t thread_count() { return std::int64_t{gridDim.x} * blockDim.x; }

__global__ void fill_values(Array out, std::int64_t n, double value) {
  for (std::int64_t i = thread_index(); i < n; i += thread_count())
    store_scalar(out.data, out.type, i, value);
}

__global__ void iota_values(Array out, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += thread_count())
    store_scalar(out.data, out.type, i, static_cast<double>(i));
}

template <class T>
__global__ void assign_values(Array to, Array from, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += thread_count())
    store_scalar(to.data, to.type, i, load_scalar<T>(from.data, from.type, i));
}

template <class T>
__global__ void accumulate_values(Array to, Array from, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += thread_count())
    store_scalar(to.data, to.type, i,
                 load_scalar<T>(to.data, to.type, i) + load_scalar<T>(from.data, from.type, i));
}

template <class T>
__global__ void append_values(CacheAppend a, FaultSink faults) {
  const std::int64_t at = *a.at;
  if (at < 0 || at + a.tokens > a.capacity) {
    if (thread_index() == 0) report_fault(faults, FaultKind::cache_row, at, a.tokens, a.capacity);
    return;
  }
  for (std::int64_t i = thread_index(); i < a.tokens * a.row; i += thread_count())
    store_scalar(a.cache.data, a.cache.type, at * a.row + i, load_scalar<T>(a.x.data, a.x.type, i));
}

template <class E>
__global__ void pad_values(Padding a) {
  const std::int64_t wide = a.before + a.n + a.after, total = a.outer * wide * a.inner;
  for (std::int64_t u = thread_index(); u < total; u += thread_count()) {
    const std::int64_t i = u % a.inner, rest = u / a.inner, at = rest % wide - a.before,
                       o = rest / wide;
    static_cast<E*>(a.y)[u] =
        at >= 0 && at < a.n ? static_cast<const E*>(a.x)[(o * a.n + at) * a.inner + i] : E{0};
  }
}

template <bool max, class T>
__device__ inline T join(T a, T b) {
  if constexpr (max)
    return b > a ? b : a;
  else
    return a + b;
}

// inner = 1: a warp a row.
template <class T, bool max>
__global__ void __launch_bounds__(kThreads) reduce_rows(Reduction a) {
  const std::int64_t row = thread_index() / 32;
  if (row >= a.outer) return;
  T total = max ? T(-INFINITY) : T(0);
  for (std::int64_t k = threadIdx.x % 32; k < a.n; k += 32)
    total = join<max>(total, load_scalar<T>(a.x.data, a.x.type, row * a.n + k));
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    total = join<max>(total, __shfl_xor_sync(0xffffffffu, total, step));
  if (threadIdx.x % 32 == 0) store_scalar(a.y.data, a.y.type, row, total);
}

// Else 32 neighbouring columns a block, whose warps take the rows in turn and join what they have.
template <class T, bool max>
__global__ void __launch_bounds__(kThreads) reduce_columns(Reduction a) {
  constexpr int kWarps = kThreads / 32;
  __shared__ T parts[kWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t strips = (a.inner + 31) / 32, outer = blockIdx.x / strips;
  const std::int64_t column = blockIdx.x % strips * 32 + lane,
                     base = outer * a.n * a.inner + column;
  const bool inside = column < a.inner;
  const T start = max ? T(-INFINITY) : T(0);
  T totals[4] = {start, start, start, start};  // side by side
  for (std::int64_t k = warp; k < a.n; k += 4 * kWarps) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t row = k + j * kWarps;
      if (inside && row < a.n)
        totals[j] = join<max>(totals[j], load_scalar<T>(a.x.data, a.x.type, base + row * a.inner));
    }
  }
  parts[warp][lane] = join<max>(join<max>(totals[0], totals[1]), join<max>(totals[2], totals[3]));
  __syncthreads();
  if (warp != 0 || !inside) return;
  T total = parts[0][lane];
  for (int w = 1; w < kWarps; ++w) total = join<max>(total, parts[w][lane]);
  store_scalar(a.y.data, a.y.type, outer * a.inner + column, total);
}

constexpr int kTile = 16;

template <class T>
__global__ void __launch_bounds__(kTile* kTile) product_tiles(BatchProduct p) {
  __shared__ T left[kTile][kTile + 1], right[kTile][kTile + 1];
  const int tx = threadIdx.x % kTile, ty = threadIdx.x / kTile;
  const std::int64_t row = std::int64_t{blockIdx.y} * kTile + ty,
                     col = std::int64_t{blockIdx.x} * kTile + tx;
  for (std::int64_t z = blockIdx.z; z < p.batch; z += gridDim.z) {
    std::int64_t at_a = 0, at_b = 0, rest = z;
    for (int d = p.leading - 1; d >= 0; --d) {
      at_a += rest % p.dims[d] * p.a_strides[d];
      at_b += rest % p.dims[d] * p.b_strides[d];
      rest /= p.dims[d];
    }
    T total = 0;
    for (std::int64_t k = 0; k < p.k; k += kTile) {
      left[ty][tx] =
          row < p.m && k + tx < p.k
              ? load_scalar<T>(p.a.data, p.a.type, at_a + row * p.a_row + (k + tx) * p.a_col)
              : T(0);
      right[ty][tx] =
          k + ty < p.k && col < p.n
              ? load_scalar<T>(p.b.data, p.b.type, at_b + (k + ty) * p.b_row + col * p.b_col)
              : T(0);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kTile; ++i) total = fma(left[ty][i], right[i][tx], total);
      __syncthreads();
    }
    if (row < p.m && col < p.n)
      store_scalar(p.out.data, p.out.type, (z * p.m + row) * p.n + col, total);
  }
}

}  // namespace

void fill(Array out, std::int64_t n, double value, cudaStream_t stream) {
  if (n == 0) return;
  if (value == 0)
    return check(
        cudaMemsetAsync(out.data, 0, static_cast<std::size_t>(n) * size_of(out.type), stream),
        "fill");
  fill_values<<<blocks_for(n), kThreads, 0, stream>>>(out, n, value);
  check_launch("fill");
}

void iota(Array out, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  iota_values<<<blocks_for(n), kThreads, 0, stream>>>(out, n);
  check_launch("iota");
}

void assign(Array to, Array from, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  if (to.type == from.type)
    return check(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(n) * size_of(to.type),
                                 cudaMemcpyDeviceToDevice, stream),
                 "assign");
  if (needs_double(to.type) || needs_double(from.type))
    assign_values<double><<<blocks_for(n), kThreads, 0, stream>>>(to, from, n);
  else
    assign_values<float><<<blocks_for(n), kThreads, 0, stream>>>(to, from, n);
  check_launch("assign");
}

void accumulate(Array to, Array from, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  if (needs_double(to.type) || needs_double(from.type))
    accumulate_values<double><<<blocks_for(n), kThreads, 0, stream>>>(to, from, n);
  else
    accumulate_values<float><<<blocks_for(n), kThreads, 0, stream>>>(to, from, n);
  check_launch("accumulate");
}

void append_rows(const CacheAppend& a, FaultSink faults, cudaStream_t stream) {
  const std::int64_t n = a.tokens * a.row;
  if (n == 0) return;
  if (needs_double(a.cache.type) || needs_double(a.x.type))
    append_values<double><<<blocks_for(n), kThreads, 0, stream>>>(a, faults);
  else
    append_values<float><<<blocks_for(n), kThreads, 0, stream>>>(a, faults);
  check_launch("kv_append");
}

void pad(const Padding& a, std::size_t element, cudaStream_t stream) {
  const std::int64_t n = a.outer * (a.before + a.n + a.after) * a.inner;
  if (n == 0) return;
  switch (element) {
    case 1:
      pad_values<std::uint8_t><<<blocks_for(n), kThreads, 0, stream>>>(a);
      break;
    case 2:
      pad_values<std::uint16_t><<<blocks_for(n), kThreads, 0, stream>>>(a);
      break;
    case 4:
      pad_values<std::uint32_t><<<blocks_for(n), kThreads, 0, stream>>>(a);
      break;
    default:
      pad_values<std::uint64_t><<<blocks_for(n), kThreads, 0, stream>>>(a);
      break;
  }
  check_launch("pad");
}

namespace {

template <class T, bool max>
void launch_reduction(const Reduction& a, cudaStream_t stream) {
  if (a.inner == 1) {
    const auto blocks = static_cast<unsigned>((a.outer * 32 + kThreads - 1) / kThreads);
    reduce_rows<T, max><<<blocks, kThreads, 0, stream>>>(a);
  } else {
    const auto blocks = static_cast<unsigned>(a.outer * ((a.inner + 31) / 32));
    reduce_columns<T, max><<<blocks, kThreads, 0, stream>>>(a);
  }
  check_launch(max ? "max" : "sum");
}

}  // namespace

void reduce(const Reduction& a, cudaStream_t stream) {
  if (a.outer * a.inner == 0) return;
  if (needs_double(a.x.type))
    return a.max ? launch_reduction<double, true>(a, stream)
                 : launch_reduction<double, false>(a, stream);
  a.max ? launch_reduction<float, true>(a, stream) : launch_reduction<float, false>(a, stream);
}

void batch_matmul(const BatchProduct& p, cudaStream_t stream) {
  if (p.batch * p.m * p.n == 0) return;
  const dim3 grid(static_cast<unsigned>((p.n + kTile - 1) / kTile),
                  static_cast<unsigned>((p.m + kTile - 1) / kTile),
                  static_cast<unsigned>(p.batch < 65535 ? p.batch : 65535));
  if (needs_double(p.a.type) || needs_double(p.b.type))
    product_tiles<double><<<grid, kTile * kTile, 0, stream>>>(p);
  else
    product_tiles<float><<<grid, kTile * kTile, 0, stream>>>(p);
  check_launch("batch_matmul");
}

}  // namespace supersonic::cuda
