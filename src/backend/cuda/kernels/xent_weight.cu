#include <algorithm>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/xent.h"
#include "backend/cuda/kernels/xent_parts.h"
#include "backend/cuda/kernels/xent_rows.h"

namespace supersonic::cuda {
namespace {

struct Layout {
  std::int64_t t, d, v, chunk, words;  // rows of a chunk, words of a slice
  std::int64_t ld;                     // of the logits, f32
  DType x_type, type;                  // of x; of rows as they are multiplied
  bool narrow;                         // that is bf16, in the tensor cores
  std::size_t kept, count, labels, top, sum, rows, logits, gemm, total;
};

// logits (m, words) = rows (m, D) * W^T, of words word .. word + n - 1
GemmProblem logits_product(const LinearXentWeightCall& c, const Layout& l, GemmTerm& term,
                           const char* at, std::int64_t word, std::int64_t n) {
  MatrixRef w = c.w;
  w.first_row += word;
  w.rows = n;
  term = {dense(at + l.rows, l.type, l.chunk, l.d, l.d), false, w, false};
  GemmProblem p;
  p.m = l.chunk, p.n = n, p.ldy = l.ld;
  p.terms = {&term, 1};
  p.y = const_cast<char*>(at) + l.logits;
  p.compute = c.compute;
  return p;
}

// dW (n, D) += dlogits (m, n)^T * rows (m, D)
GemmProblem weight_product(const LinearXentWeightCall& c, const Layout& l, GemmTerm& term,
                           const char* at, std::int64_t word, std::int64_t n) {
  term = {dense(at + l.logits, l.narrow ? DType::bf16 : DType::f32, l.chunk, n,
                l.narrow ? 2 * l.ld : l.ld),
          true, dense(at + l.rows, l.type, l.chunk, l.d, l.d), true};
  GemmProblem p;
  p.m = n, p.n = l.d, p.ldy = l.d;
  p.terms = {&term, 1};
  p.y = c.dw + word * l.d;
  p.accumulate = true;
  p.compute = c.compute;
  return p;
}

// Chunks and slices: as large as their limits allow, and all of about one size.
void cut(Layout& l) {
  l.chunk = std::min(l.t, round_up(ceil_div(l.t, ceil_div(l.t, kMostRows)), 128));
  std::int64_t words = std::min(kMostSliceWords, kLogitBytes / (l.chunk * 4));
  words = std::max<std::int64_t>(words / 256 * 256, 256);
  l.words = std::min(round_up(ceil_div(l.v, ceil_div(l.v, words)), 256), l.v);
  l.ld = round_up(l.words, 8);
}

Layout layout_of(const LinearXentWeightCall& c) {
  Layout l{};
  l.t = c.rows, l.d = c.x.cols, l.v = c.w.rows;
  l.x_type = float_type(c.x.codec);
  l.narrow = c.compute != Compute::fp32 && device_limits().capability >= 80;
  l.type = l.narrow ? DType::bf16 : DType::f32;
  cut(l);
  std::size_t at = 0;
  auto take = [&](std::int64_t bytes) {
    const std::size_t here = at;
    at += static_cast<std::size_t>(round_up(bytes, 256));
    return here;
  };
  l.kept = take(l.t * 4);
  l.count = take(4);
  l.labels = take(l.chunk * 4);
  l.top = take(l.chunk * 4);
  l.sum = take(l.chunk * 8);
  l.rows = take(l.chunk * l.d * static_cast<std::int64_t>(size_of(l.type)));
  l.logits = take(l.chunk * l.ld * 4);
  std::size_t most = 0;
  // A shorter slice may be split into more parts.
  for (const std::int64_t word : {std::int64_t{0}, (l.v - 1) / l.words * l.words}) {
    GemmTerm term;
    const std::int64_t n = std::min(l.words, l.v - word);
    most = std::max({most, gemm_workspace(logits_product(c, l, term, nullptr, word, n)),
                     gemm_workspace(weight_product(c, l, term, nullptr, word, n))});
  }
  l.gemm = take(static_cast<std::int64_t>(most));
  l.total = at;
  return l;
}

ChunkRows rows_of(const LinearXentWeightCall& c, const Layout& l, char* at, std::int64_t first) {
  ChunkRows r;
  r.first = static_cast<std::int32_t>(first);
  r.chunk = static_cast<std::int32_t>(l.chunk);  // the last one's end is past the list's
  r.kept = reinterpret_cast<std::int32_t*>(at + l.kept);
  r.count = reinterpret_cast<std::int32_t*>(at + l.count);
  r.label = reinterpret_cast<std::int32_t*>(at + l.labels);
  r.top = reinterpret_cast<float*>(at + l.top);
  r.sum = reinterpret_cast<double*>(at + l.sum);
  r.scale = c.scale;
  return r;
}

void add_slice(const LinearXentWeightCall& c, const Layout& l, const ChunkRows& rows, char* at,
               std::int64_t word, cudaStream_t stream) {
  const std::int64_t n = std::min(l.words, l.v - word);
  GemmTerm term;
  GemmProblem p = logits_product(c, l, term, at, word, n);
  p.live = rows.count, p.live_from = rows.first;
  gemm(p, at + l.gemm, stream);
  SliceOfWords s;
  s.logits = reinterpret_cast<float*>(at + l.logits);
  s.ld = l.ld;
  s.word = static_cast<std::int32_t>(word), s.words = static_cast<std::int32_t>(n);
  s.gradient = true, s.gradient_bf16 = l.narrow;
  gradient_slice(s, rows, {c.lse, c.nll, c.dloss}, stream);
  gemm(weight_product(c, l, term, at, word, n), at + l.gemm, stream);
}

}  // namespace

std::size_t linear_xent_weight_workspace(const LinearXentWeightCall& call) {
  return layout_of(call).total;
}

void linear_xent_weight(const LinearXentWeightCall& c, void* workspace, cudaStream_t stream) {
  const Layout l = layout_of(c);
  auto* at = static_cast<char*>(workspace);
  const ChunkRows all = rows_of(c, l, at, 0);
  list_labelled(c.labels, l.t, l.v, all.kept, all.count, c.faults, stream);
  const std::size_t row_bytes = static_cast<std::size_t>(l.d) * size_of(l.type);
  for (std::int64_t first = 0; first < l.t; first += l.chunk) {
    const ChunkRows rows = rows_of(c, l, at, first);
    check(cudaMemsetAsync(at + l.rows, 0, static_cast<std::size_t>(l.chunk) * row_bytes, stream),
          "cudaMemsetAsync");
    gather_rows(c.x.planes.data[0], l.x_type, l.d, c.labels, rows, at + l.rows, l.type, stream);
    for (std::int64_t word = 0; word < l.v; word += l.words)
      add_slice(c, l, rows, at, word, stream);
  }
}

}  // namespace supersonic::cuda
