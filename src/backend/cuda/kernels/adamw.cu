#include "backend/cuda/kernels/adamw.h"

#include <cuda_bf16.h>

#include <type_traits>

#include "backend/cuda/kernels/fault.h"
#include "backend/cuda/kernels/reduce.cuh"
#include "core/rounding.h"
#include "formats/dynamic8.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kChunk = 16384;  // elements whose squares one block sums

__device__ const formats::Dynamic8 moment_map(true), square_map(false);

struct Factors {  // what a step needs of the hyper-parameters
  float grad_scale, decay, beta1, beta2, one_minus_beta1, one_minus_beta2, correction1, correction2,
      lr, eps;
};

// By squaring: a call of pow() would cost every thread registers.
__device__ inline double power(double base, std::uint32_t n) {
  double result = 1;
  for (; n; n >>= 1, base *= base)
    if (n & 1) result *= base;
  return result;
}

// One thread of a block works them out in fp64; all get them.
__device__ inline Factors factors_of(const AdamWInputs& in, const AdamWRates& r) {
  __shared__ Factors shared;
  if (threadIdx.x == 0) {
    const double lr = in.hyper[0];
    const auto step = static_cast<std::uint32_t>(in.hyper[1]);
    const float most = in.hyper[2], scale = most > 0 ? most / (sqrtf(*in.squares) + 1e-6f) : 1.0f;
    shared.grad_scale = scale < 1.0f ? scale : 1.0f;
    shared.decay = static_cast<float>(1.0 - lr * r.weight_decay);
    shared.beta1 = r.beta1;
    shared.beta2 = r.beta2;
    shared.one_minus_beta1 = static_cast<float>(1.0 - static_cast<double>(r.beta1));
    shared.one_minus_beta2 = static_cast<float>(1.0 - static_cast<double>(r.beta2));
    shared.correction1 = static_cast<float>(1.0 - power(r.beta1, step));
    shared.correction2 = static_cast<float>(sqrt(1.0 - power(r.beta2, step)));
    shared.lr = in.hyper[0];
    shared.eps = r.eps;
  }
  __syncthreads();
  return shared;
}

// The rounding draws of a block's elements, in shared memory: a thread makes those of eight neighbours.
template <int blocks>
struct Draws {
  std::uint32_t words[blocks][4];

  // Of the block-th eight elements from first_block on.
  __device__ void make(int block, std::int64_t first_block, const AdamWInputs& in,
                       std::uint64_t seed) {
    const PhiloxBlock draws = philox(rounding_counter(static_cast<std::uint32_t>(in.hyper[1]),
                                                      static_cast<std::uint64_t>(first_block + block)),
                                     seed);
    for (int w = 0; w < 4; ++w) words[block][w] = draws[w];
  }
  __device__ __nv_bfloat16 round(float x, int element) const {
    const std::uint32_t word = words[element / kDrawsPerBlock][element % kDrawsPerBlock / 2];
    return __ushort_as_bfloat16(
        round_stochastically(x, word >> (element % 2 * 16) & 0xffffu).bits);
  }
};
struct NoDraws {};

__device__ inline float updated(const AdamWState& s, const AdamWInputs& in, const Factors& f,
                                float step_size, float inverse_root, std::int64_t i, float p) {
  const float g = in.gradient[i] * f.grad_scale, m0 = s.m[i];
  const float m = fmaf(g - m0, f.one_minus_beta1, m0),
              v = fmaf(g * f.one_minus_beta2, g, s.v[i] * f.beta2);
  s.m[i] = m;
  s.v[i] = v;
  return fmaf(m / fmaf(sqrtf(v), inverse_root, f.eps), -step_size, p * f.decay);
}

__global__ void __launch_bounds__(kThreads)
    step(AdamWState s, AdamWInputs in, AdamWRates rates, std::int64_t n) {
  const Factors f = factors_of(in, rates);
  const float step_size = f.lr / f.correction1, inverse_root = 1.0f / f.correction2;
  auto* p = static_cast<float*>(s.p);
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * kThreads)
    p[i] = updated(s, in, f, step_size, inverse_root, i, p[i]);
}

// Parameters in bf16: a thread makes the draws of eight neighbours, and updates eight elements that
// lie a block's width apart, so that memory is read in order.
__global__ void __launch_bounds__(kThreads)
    step_bf16(AdamWState s, AdamWInputs in, AdamWRates rates, std::int64_t n) {
  constexpr int kElements = kThreads * static_cast<int>(kDrawsPerBlock);
  __shared__ Draws<kThreads> draws;
  const Factors f = factors_of(in, rates);
  const float step_size = f.lr / f.correction1, inverse_root = 1.0f / f.correction2;
  auto* p = static_cast<__nv_bfloat16*>(s.p);
  for (std::int64_t first = std::int64_t{blockIdx.x} * kElements; first < n;
       first += std::int64_t{gridDim.x} * kElements) {
    __syncthreads();
    draws.make(static_cast<int>(threadIdx.x), first / kDrawsPerBlock, in, rates.seed);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDrawsPerBlock; ++k) {
      const int element = k * kThreads + static_cast<int>(threadIdx.x);
      const std::int64_t i = first + element;
      if (i >= n) break;
      p[i] = draws.round(
          updated(s, in, f, step_size, inverse_root, i, __bfloat162float(p[i])), element);
    }
  }
}

// The signed map: 0 ... 126 are negative, 127 is zero, 128 ... 255 positive; entry 254 - c is minus
// entry c.
__device__ inline std::uint8_t signed_code(float x, float inverse_max) {
  const int k =
      moment_map.encode(fminf(fabsf(x) * inverse_max, 1.0f)) - 128;  // -1: nearest to zero
  if (!(x < 0)) return static_cast<std::uint8_t>(128 + k);
  return static_cast<std::uint8_t>(k >= 127 ? 0 : 126 - (k < 0 ? 0 : k));
}

template <class T>
__global__ void __launch_bounds__(kAdamWBlock)
    step_8bit(AdamW8bitState s, AdamWInputs in, AdamWRates rates, std::int64_t n) {
  constexpr bool narrow = sizeof(T) == 2;
  constexpr int kDrawBlocks = kAdamWBlock / static_cast<int>(kDrawsPerBlock);
  __shared__ float scratch[32];
  __shared__ std::conditional_t<narrow, Draws<kDrawBlocks>, NoDraws> draws;
  auto* parameters = static_cast<T*>(s.p);
  const Factors f = factors_of(in, rates);
  const std::int64_t block = blockIdx.x, i = block * kAdamWBlock + threadIdx.x;
  const float step_size = -f.lr * f.correction2 / f.correction1, eps = f.correction2 * f.eps;
  const float old_m = s.m_max[block], old_v = s.v_max[block];
  float m = 0, v = 0;
  if constexpr (narrow) {
    if (threadIdx.x < kDrawBlocks)
      draws.make(static_cast<int>(threadIdx.x), block * kDrawBlocks, in, rates.seed);
    __syncthreads();
  }
  if (i < n) {
    float g = in.gradient[i] * f.grad_scale;
    if (!(fabsf(g) < INFINITY)) g = 0;
    m = fmaf(g, f.one_minus_beta1, moment_map.values[s.m[i]] * old_m * f.beta1);
    v = fmaf(g * f.one_minus_beta2, g, square_map.values[s.v[i]] * old_v * f.beta2);
    const float p =
        fmaf(m / (sqrtf(v) + eps), step_size, static_cast<float>(parameters[i])) * f.decay;
    if constexpr (narrow)
      parameters[i] = draws.round(p, static_cast<int>(threadIdx.x));
    else
      parameters[i] = p;
  }
  const float max_m = reduce_block(fabsf(m), Larger{}, 0.0f, scratch),
              max_v = reduce_block(v, Larger{}, 0.0f, scratch);
  if (threadIdx.x == 0) {
    s.m_max[block] = max_m;
    s.v_max[block] = max_v;
  }
  if (i >= n) return;
  s.m[i] = signed_code(m, max_m > 0 ? 1.0f / max_m : 0.0f);
  s.v[i] = square_map.encode(fminf(v * (max_v > 0 ? 1.0f / max_v : 0.0f), 1.0f));
}

__global__ void __launch_bounds__(kThreads)
    square_chunks(const float* x, std::int64_t n, double* sums) {
  __shared__ double scratch[32];
  const std::int64_t begin = blockIdx.x * kChunk, end = begin + kChunk < n ? begin + kChunk : n;
  double total = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double v = x[i];
    total = fma(v, v, total);
  }
  total = reduce_block(total, Plus{}, 0.0, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads)
    add_sums(const double* sums, std::int64_t count, float* out) {
  __shared__ double scratch[32];
  double total = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) total += sums[i];
  total = reduce_block(total, Plus{}, 0.0, scratch);
  if (threadIdx.x == 0) *out = static_cast<float>(total);
}

std::int64_t chunks_of(std::int64_t n) { return (n + kChunk - 1) / kChunk; }

}  // namespace

void adamw(const AdamWState& s, const AdamWInputs& in, const AdamWRates& rates, std::int64_t n,
           cudaStream_t stream) {
  if (n == 0) return;
  const std::int64_t each = s.type == DType::bf16 ? kThreads * kDrawsPerBlock : kThreads,
                     blocks = (n + each - 1) / each;
  const auto grid = static_cast<unsigned>(blocks < 4096 ? blocks : 4096);
  if (s.type == DType::bf16)
    step_bf16<<<grid, kThreads, 0, stream>>>(s, in, rates, n);
  else
    step<<<grid, kThreads, 0, stream>>>(s, in, rates, n);
  check_launch("adamw");
}

void adamw_8bit(const AdamW8bitState& s, const AdamWInputs& in, const AdamWRates& rates,
                std::int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  const auto blocks = static_cast<unsigned>((n + kAdamWBlock - 1) / kAdamWBlock);
  if (s.type == DType::bf16)
    step_8bit<__nv_bfloat16><<<blocks, kAdamWBlock, 0, stream>>>(s, in, rates, n);
  else
    step_8bit<float><<<blocks, kAdamWBlock, 0, stream>>>(s, in, rates, n);
  check_launch("adamw_8bit");
}

std::size_t sum_squares_workspace(std::int64_t n) {
  return static_cast<std::size_t>(chunks_of(n)) * sizeof(double);
}

void sum_squares(const float* x, std::int64_t n, float* out, void* workspace, cudaStream_t stream) {
  auto* sums = static_cast<double*>(workspace);
  if (n > 0)
    square_chunks<<<static_cast<unsigned>(chunks_of(n)), kThreads, 0, stream>>>(x, n, sums);
  check_launch("sum_squares");
  add_sums<<<1, kThreads, 0, stream>>>(sums, chunks_of(n), out);
  check_launch("sum_squares");
}

}  // namespace supersonic::cuda
