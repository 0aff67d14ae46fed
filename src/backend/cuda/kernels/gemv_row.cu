// One row: y (1, N) = sum_i x_i (1, K_i) * W_i (N, K_i)^T, the product of a decoded token. A warp
// takes `columns` columns of y at a time, its lanes strips of 32 weights in turn. Blocks stay: they
// hold the activations of the quantized term in shared memory, as floats and in the order in which
// lanes read them without bank conflicts, and take one group of columns after another, whose next
// strips are always on their way. Where the activations do not fit, or more than one term is
// quantized, lanes read them from global memory. Terms with dense weights (adapters, unquantized
// layers) go by pieces of eight. Bytes moved: the weights', once; limit: the memory's bandwidth,
// and on an H100 close behind it the integer pipe, at one and a half instructions a 4-bit weight.
#include "backend/cuda/kernels/gemv.h"
#include "backend/cuda/kernels/strips.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 4, kBlocks = 3;  // at least so many blocks on a multiprocessor

__device__ inline float sum_of_eight(const float* x) {
  return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

template <Codec C>
__device__ StripRow strip_row(const VectorTerm& t, std::int64_t n) {
  const auto* codes = static_cast<const std::uint8_t*>(t.w.data[0]);
  if constexpr (C == Codec::nf4 || C == Codec::nf4_plain)
    return {codes, &t.w, n * t.k};
  else
    return {codes + n * (t.k / Piece<C>::weights) *
                        static_cast<std::int64_t>(sizeof(typename Piece<C>::Block)),
            &t.w, n * t.k};
}

// All lanes go through the loop together; those past the end take the last strip times zero.
template <Codec C, int columns>
__device__ void add_strips(const VectorTerm& t, const int (&column)[columns],
                           float (&sum)[columns]) {
  const int lane = threadIdx.x % 32, units = static_cast<int>(t.k / 32);
  typename Strip<C>::Raw next[columns];
  auto load = [&](int unit) {
#pragma unroll
    for (int c = 0; c < columns; ++c)
      next[c] = Strip<C>::load(strip_row<C>(t, column[c]), min(unit, units - 1));
  };
  load(lane);
  for (int base = 0; base < units; base += 32) {
    const int unit = base + lane;
    typename Strip<C>::Raw raw[columns];
#pragma unroll
    for (int c = 0; c < columns; ++c) raw[c] = next[c];
    if (base + 32 < units) load(unit + 32);
    StripX s;
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      dense8(t.x, t.x_type, t.fast_x, Strip<C>::granule(min(unit, units - 1), g),
             unit < units ? 8 : 0, s.x[g]);
      s.sum[g] = sum_of_eight(s.x[g]);
    }
#pragma unroll
    for (int c = 0; c < columns; ++c) sum[c] += Strip<C>::dot(raw[c], s);
  }
}

// bf16 on both sides, whole vectors: four pieces of each column in flight.
template <int columns>
__device__ void add_dense_vectors(const VectorTerm& t, const int (&column)[columns],
                                  float (&sum)[columns]) {
  constexpr int ahead = 4;
  const auto* x = static_cast<const __nv_bfloat16*>(t.x);
  const auto* w = static_cast<const __nv_bfloat16*>(t.w.data[0]);
  for (std::int64_t k0 = threadIdx.x % 32 * 8; k0 < t.k; k0 += ahead * 256) {
    uint4 xv[ahead] = {}, wv[ahead][columns] = {};
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const std::int64_t k = k0 + u * 256;
      if (k >= t.k) continue;
      xv[u] = *reinterpret_cast<const uint4*>(x + k);
#pragma unroll
      for (int c = 0; c < columns; ++c)
        wv[u][c] = *reinterpret_cast<const uint4*>(w + column[c] * t.ldw + k);
    }
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      float xf[8], wf[8];
      unpack8(xv[u], xf);
#pragma unroll
      for (int c = 0; c < columns; ++c) {
        unpack8(wv[u][c], wf);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[c] += xf[e] * wf[e];
      }
    }
  }
}

template <int columns>
__device__ void add_dense(const VectorTerm& t, const int (&column)[columns],
                          float (&sum)[columns]) {
  if (t.fast_x && t.fast_w && t.k % 8 == 0 && t.x_type == DType::bf16 && t.w_type == DType::bf16)
    return add_dense_vectors(t, column, sum);
  for (std::int64_t k = threadIdx.x % 32 * 8; k < t.k; k += 256) {
    const int count = t.k - k < 8 ? static_cast<int>(t.k - k) : 8;
    float x[8], w[columns][8];
#pragma unroll
    for (int c = 0; c < columns; ++c)
      dense8(t.w.data[0], t.w_type, t.fast_w, column[c] * t.ldw + k, count, w[c]);
    dense8(t.x, t.x_type, t.fast_x, k, count, x);
#pragma unroll
    for (int c = 0; c < columns; ++c)
#pragma unroll
      for (int e = 0; e < 8; ++e) sum[c] += x[e] * w[c][e];
  }
}

// The warp's columns leave.
template <int columns>
__device__ void store_columns(const VectorProblem& p, int first, const float (&sum)[columns]) {
#pragma unroll
  for (int c = 0; c < columns; ++c) {
    float total = warp_sum(sum[c]);
    if (threadIdx.x % 32 != 0 || first + c >= p.n) continue;
    if (p.accumulate) total += load_float(p.y, p.y_type, first + c);
    store_float(p.y, p.y_type, first + c, total);
  }
}

constexpr int kStagedWarps = 8, kStagedBlocks = 2;

// The activations of one term in shared memory: eight planes of float4 (granule g's halves), one
// element a strip, then four planes of the granules' sums.
template <Codec C>
__device__ void stage(const VectorTerm& t, int units, float4* x, float* sums) {
  for (int i = static_cast<int>(threadIdx.x); i < units * 4; i += 32 * kStagedWarps) {
    const int unit = i / 4, g = i % 4;
    float v[8];
    dense8(t.x, t.x_type, t.fast_x, Strip<C>::granule(unit, g), 8, v);
    x[2 * g * units + unit] = make_float4(v[0], v[1], v[2], v[3]);
    x[(2 * g + 1) * units + unit] = make_float4(v[4], v[5], v[6], v[7]);
    sums[g * units + unit] = sum_of_eight(v);
  }
  __syncthreads();
}
__device__ inline StripX staged_strip(const float4* x, const float* sums, int units, int unit) {
  StripX s{};
  if (unit >= units) return s;
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    const float4 a = x[2 * g * units + unit], b = x[(2 * g + 1) * units + unit];
    s.x[g][0] = a.x, s.x[g][1] = a.y, s.x[g][2] = a.z, s.x[g][3] = a.w;
    s.x[g][4] = b.x, s.x[g][5] = b.y, s.x[g][6] = b.z, s.x[g][7] = b.w;
    s.sum[g] = sums[g * units + unit];
  }
  return s;
}

// quantized: which term. The walk over (columns, strips) is one loop, so that loads run ahead
// across columns.
template <Codec C, int columns>
__global__ void __launch_bounds__(32 * kStagedWarps, kStagedBlocks)
    staged_kernel(const __grid_constant__ VectorProblem p, int quantized_term) {
  extern __shared__ float4 staged[];
  const VectorTerm& t = p.terms[quantized_term];
  const int units = static_cast<int>(t.k / 32), lane = threadIdx.x % 32;
  auto* sums = reinterpret_cast<float*>(staged + 8 * units);
  const int step = static_cast<int>(gridDim.x) * kStagedWarps * columns;
  int first =
      (static_cast<int>(blockIdx.x) * kStagedWarps + static_cast<int>(threadIdx.x) / 32) * columns;
  typename Strip<C>::Raw next[columns];
  auto load = [&](int from, int unit) {
#pragma unroll
    for (int c = 0; c < columns; ++c)
      next[c] = Strip<C>::load(strip_row<C>(t, min(from + c, p.n - 1)), min(unit, units - 1));
  };
  if (first < p.n) load(first, lane);
  stage<C>(t, units, staged, sums);
  float sum[columns] = {};
  for (int base = 0; first < p.n;) {
    typename Strip<C>::Raw raw[columns];
#pragma unroll
    for (int c = 0; c < columns; ++c) raw[c] = next[c];
    const bool last = base + 32 >= units;
    const int next_first = last ? first + step : first, next_base = last ? 0 : base + 32;
    if (next_first < p.n) load(next_first, next_base + lane);
    const StripX s = staged_strip(staged, sums, units, base + lane);
#pragma unroll
    for (int c = 0; c < columns; ++c) sum[c] += Strip<C>::dot(raw[c], s);
    if (last) {
      int column[columns];
#pragma unroll
      for (int c = 0; c < columns; ++c) column[c] = min(first + c, p.n - 1);
      for (int i = 0; i < p.count; ++i)
        if (i != quantized_term) add_dense(p.terms[i], column, sum);
      store_columns(p, first, sum);
#pragma unroll
      for (int c = 0; c < columns; ++c) sum[c] = 0;
    }
    first = next_first, base = next_base;
  }
}

template <Codec C, int columns>
__global__ void __launch_bounds__(32 * kWarps, kBlocks)
    row_kernel(const __grid_constant__ VectorProblem p) {
  const int first =
      (static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32) * columns;
  if (first >= p.n) return;
  int column[columns];
  float sum[columns] = {};
#pragma unroll
  for (int c = 0; c < columns; ++c) column[c] = min(first + c, p.n - 1);
  for (int i = 0; i < p.count; ++i) {
    if constexpr (quantized(C)) {
      if (!p.terms[i].dense) {
        add_strips<C>(p.terms[i], column, sum);
        continue;
      }
    }
    add_dense(p.terms[i], column, sum);
  }
  store_columns(p, first, sum);
}

template <Codec C, int columns>
bool launch_columns(const VectorProblem& p, cudaStream_t stream) {
  row_kernel<C, columns><<<static_cast<unsigned>(ceil_div(p.n, std::int64_t{columns} * kWarps)),
                           32 * kWarps, 0, stream>>>(p);
  check_launch("vector_row");
  return true;
}

template <Codec C, int columns>
bool launch_staged(const VectorProblem& p, int term, std::size_t bytes, cudaStream_t stream) {
  static const bool allowed =
      (allow_shared(staged_kernel<C, columns>, device_limits().shared_bytes), true);
  static_cast<void>(allowed);
  const std::int64_t fit =
      bytes * kStagedBlocks <= device_limits().shared_bytes ? kStagedBlocks : 1;
  const std::int64_t blocks = ceil_div(p.n, std::int64_t{columns} * kStagedWarps),
                     most = fit * device_limits().multiprocessors;
  staged_kernel<C, columns>
      <<<static_cast<unsigned>(blocks < most ? blocks : most), 32 * kStagedWarps, bytes, stream>>>(
          p, term);
  check_launch("vector_row");
  return true;
}

// Shared memory for the activations of the only quantized term; 0: they stay where they are.
std::size_t staged_bytes(const VectorProblem& p, int& term) {
  term = -1;
  for (int i = 0; i < p.count; ++i) {
    if (p.terms[i].dense) continue;
    if (term >= 0 || p.terms[i].k % 32) return 0;
    term = i;
  }
  if (term < 0) return 0;
  const auto bytes = static_cast<std::size_t>(p.terms[term].k / 32) * (32 + 4) * 4;
  return bytes <= device_limits().shared_bytes ? bytes : 0;
}

template <Codec C>
bool launch(const VectorProblem& p, cudaStream_t stream) {
  const int units = device_limits().multiprocessors;
  if constexpr (quantized(C)) {
    int term = -1;
    // Staging is worth it where a block has several groups of columns to take.
    if (const std::size_t bytes = staged_bytes(p, term); bytes > 0 && p.n >= 16 * units)
      return launch_staged<C, 2>(p, term, bytes, stream);
  }
  return p.n >= 24 * units ? launch_columns<C, 2>(p, stream) : launch_columns<C, 1>(p, stream);
}

// Whether strips can be loaded: at such addresses, whole ones.
bool strips_fit(const VectorProblem& p, std::uintptr_t alignment) {
  for (int i = 0; i < p.count; ++i) {
    const VectorTerm& t = p.terms[i];
    if (!t.dense && (reinterpret_cast<std::uintptr_t>(t.w.data[0]) % alignment || t.k % 32))
      return false;
  }
  return true;
}

}  // namespace

bool vector_row(const VectorProblem& p, Codec codec, cudaStream_t stream) {
  switch (codec) {
    case Codec::q4_0:
      return launch<Codec::q4_0>(p, stream);
    case Codec::q4_1:
      return launch<Codec::q4_1>(p, stream);
    case Codec::q5_0:
      return launch<Codec::q5_0>(p, stream);
    case Codec::q5_1:
      return launch<Codec::q5_1>(p, stream);
    case Codec::q8_0:
      return launch<Codec::q8_0>(p, stream);
    case Codec::q4_k:
      return strips_fit(p, 16) && launch<Codec::q4_k>(p, stream);
    case Codec::q5_k:
      return strips_fit(p, 16) && launch<Codec::q5_k>(p, stream);
    case Codec::q6_k:
      return launch<Codec::q6_k>(p, stream);
    case Codec::nf4:
      return strips_fit(p, 16) && launch<Codec::nf4>(p, stream);
    case Codec::nf4_plain:
      return strips_fit(p, 16) && launch<Codec::nf4_plain>(p, stream);
    case Codec::f32:
      return launch<Codec::f32>(p, stream);
    default:
      return false;
  }
}

}  // namespace supersonic::cuda
