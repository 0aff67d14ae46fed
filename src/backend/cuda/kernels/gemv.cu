// Few rows (a decoded token, or eight): y (M, N) = sum_i x_i (M, K_i) * W_i (N, K_i)^T with the
// weights read where they lie. A warp takes kColumns columns of y; a lane takes every 32nd piece of
// eight weights of each, meets them with the same eight values of every row of x, and the lanes'
// sums are added at the end. All arithmetic is fp32. Bytes moved: the weights', once; limit: the
// memory's bandwidth.
#include "backend/cuda/kernels/gemv.h"

#include "backend/cuda/kernels/nf4.cuh"
#include "backend/cuda/kernels/pieces.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 4;

// Eight weights of row n, from k on. C: the format of the quantized terms, or a float type where
// there are none.
template <Codec C>
__device__ void weights8(const VectorTerm& t, std::int64_t n, std::int64_t k, int count,
                         float* out) {
  if constexpr (C == Codec::nf4 || C == Codec::nf4_plain) {
    if (!t.dense) {
      constexpr bool nested = C == Codec::nf4;
      const Nf4Planes planes = nf4_planes(t.w, nested);
      const std::int64_t at = n * t.k + k;  // k is a multiple of 8, and so is t.k
      const float scale = nf4_scale<nested>(planes, at / formats::Nf4::weights);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        out[i] = nf4_value(planes.codes[(at + i) / 2] >> (i % 2 ? 0 : 4) & 15) * scale;
      return;
    }
  } else if constexpr (quantized(C)) {
    if (!t.dense) {
      constexpr int pieces = Piece<C>::weights / 8;
      const auto piece = static_cast<int>(k / 8);
      const auto* row =
          static_cast<const typename Piece<C>::Block*>(t.w.data[0]) + n * (t.k / Piece<C>::weights);
      Piece<C>::decode8(row[piece / pieces], piece % pieces, out);
      return;
    }
  }
  dense8(t.w.data[0], t.w_type, t.fast_w, n * t.ldw + k, count, out);
}

template <Codec C, int rows, int columns>
__global__ void __launch_bounds__(32 * kWarps, 8)
    vector_kernel(const __grid_constant__ VectorProblem p) {
  const int lane = threadIdx.x % 32,
            n0 = (static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32) *
                 columns;
  if (n0 >= p.n) return;
  float sum[columns][rows] = {};
  for (int i = 0; i < p.count; ++i) {
    const VectorTerm& t = p.terms[i];
    for (std::int64_t k = lane * 8; k < t.k; k += 256) {
      const int count = t.k - k < 8 ? static_cast<int>(t.k - k) : 8;
      float w[columns][8];
#pragma unroll
      for (int c = 0; c < columns; ++c) weights8<C>(t, min(n0 + c, p.n - 1), k, count, w[c]);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        float x[8];
        if (r < p.m) dense8(t.x, t.x_type, t.fast_x, r * t.ldx + k, count, x);
#pragma unroll
        for (int c = 0; c < columns; ++c)
#pragma unroll
          for (int e = 0; e < 8; ++e)
            if (r < p.m) sum[c][r] += x[e] * w[c][e];
      }
    }
  }
#pragma unroll
  for (int c = 0; c < columns; ++c)
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float total = warp_sum(sum[c][r]);
      if (lane != 0 || r >= p.m || n0 + c >= p.n) continue;
      const std::int64_t at = r * p.ldy + n0 + c;
      if (p.accumulate) total += load_float(p.y, p.y_type, at);
      store_float(p.y, p.y_type, at, total);
    }
}

template <Codec C>
void launch(const VectorProblem& p, cudaStream_t stream) {
  const int columns = p.m == 1 ? 2 : 1;
  const auto blocks =
      static_cast<unsigned>(ceil_div(p.n, static_cast<std::int64_t>(columns) * kWarps));
  if (p.m == 1) {
    vector_kernel<C, 1, 2><<<blocks, 32 * kWarps, 0, stream>>>(p);
  } else if (p.m <= 4) {
    vector_kernel<C, 4, 1><<<blocks, 32 * kWarps, 0, stream>>>(p);
  } else {
    vector_kernel<C, 8, 1><<<blocks, 32 * kWarps, 0, stream>>>(p);
  }
  check_launch("vector_product");
}

VectorTerm term_of(const GemmTerm& t) {
  VectorTerm v{};
  auto fast = [](const void* data, std::int64_t ld) {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && ld % 8 == 0;
  };
  v.k = t.x.cols;
  v.x = t.x.planes.data[0], v.x_type = float_type(t.x.codec), v.ldx = t.x.ld ? t.x.ld : t.x.cols;
  v.w = t.w.planes, v.dense = !quantized(t.w.codec), v.w_type = float_type(t.w.codec),
  v.ldw = t.w.ld ? t.w.ld : t.w.cols;
  v.fast_x = fast(v.x, v.ldx);
  v.fast_w = fast(v.w.data[0], v.ldw);
  return v;
}

}  // namespace

bool vector_product_takes(const GemmProblem& p) {
  if (p.m > kVectorRows || p.terms.empty() || p.longest_sum > 0 || p.alpha != 1) return false;
  Codec found = Codec::f32;
  for (const GemmTerm& t : p.terms) {
    if (t.trans_x || t.trans_w || t.x.first_row || t.w.first_row) return false;
    if (!quantized(t.w.codec)) continue;
    if (t.w.cols % 8 || (quantized(found) && found != t.w.codec)) return false;
    found = t.w.codec;
  }
  return true;
}

void vector_product(const GemmProblem& p, cudaStream_t stream) {
  VectorProblem v{};
  v.m = static_cast<int>(p.m), v.n = static_cast<int>(p.n),
  v.count = static_cast<int>(p.terms.size());
  v.y = p.y, v.ldy = p.ldy, v.y_type = p.y_type, v.accumulate = p.accumulate;
  Codec codec = Codec::f32;
  for (int i = 0; i < v.count; ++i) {
    v.terms[i] = term_of(p.terms[i]);
    if (quantized(p.terms[i].w.codec)) codec = p.terms[i].w.codec;
  }
  const bool rounds = codec == Codec::nf4 || codec == Codec::nf4_plain;  // in fragments
  if (!(rounds && p.compute == Compute::fp32) && vector_rows(v, codec, stream)) return;
  if (v.m == 1 && vector_row(v, codec, stream)) return;
  if (with_block_codec(codec, [&](auto c) { launch<c.value>(v, stream); })) return;
  switch (codec) {
    case Codec::nf4:
      return launch<Codec::nf4>(v, stream);
    case Codec::nf4_plain:
      return launch<Codec::nf4_plain>(v, stream);
    default:
      return launch<Codec::f32>(v, stream);
  }
}

}  // namespace supersonic::cuda
