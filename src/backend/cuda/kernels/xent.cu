#include "backend/cuda/kernels/xent.h"

#include <algorithm>

#include "backend/cuda/kernels/device.h"
#include "backend/cuda/kernels/xent_rows.h"

namespace supersonic::cuda {
namespace {

constexpr std::int64_t kLogitBytes = 256 << 20, kLeastChunk = 128, kMostChunk = 2048;
constexpr std::int64_t kPanelBytes = 64 << 20;  // of the head, decoded for the gradient
constexpr std::int64_t kLongestSum = 2048;      // words that one fp32 run adds into dx

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

struct Layout {
  std::int64_t t, d, v, chunk,
      words;  // words: rows of the head that one product of the gradient takes
  DType type;
  bool narrow;  // the gradient of the logits is bf16
  std::size_t kept, count, losses, rows, logits, dx, gemm, total;
};

MatrixRef dense(const void* data, Codec codec, std::int64_t rows, std::int64_t cols,
                std::int64_t ld) {
  MatrixRef m;
  m.codec = codec;
  m.planes.data[0] = data;
  m.rows = rows, m.cols = cols, m.ld = ld;
  return m;
}

// logits (m, V) = rows (m, D) * W^T
GemmProblem logits_product(const LinearXentCall& c, const Layout& l, GemmTerm& term, std::int64_t m,
                           const void* rows, void* logits) {
  term = {dense(rows, c.x.codec, m, l.d, l.d), false, c.w, false};
  GemmProblem p;
  p.m = m, p.n = l.v, p.ldy = l.v;
  p.terms = {&term, 1};
  p.y = logits;
  p.compute = c.compute;
  return p;
}

// dx (m, D) (+)= gradient (m, words) * W[word ...]
GemmProblem gradient_product(const LinearXentCall& c, const Layout& l, GemmTerm& term,
                             std::int64_t m, std::int64_t word, const char* logits, void* dx) {
  const std::int64_t words = std::min(l.words, l.v - word);
  MatrixRef w = c.w;
  w.first_row += word;
  w.rows = words;
  const Codec codec = l.narrow ? Codec::bf16 : Codec::f32;
  term = {dense(logits + word * (l.narrow ? 2 : 4), codec, m, words, l.narrow ? 2 * l.v : l.v),
          false, w, true};
  GemmProblem p;
  p.m = m, p.n = l.d, p.ldy = l.d;
  p.terms = {&term, 1};
  p.y = dx;
  p.accumulate = word > 0;
  p.compute = c.compute;
  p.longest_sum = l.narrow ? 0 : kLongestSum;
  return p;
}

Layout layout_of(const LinearXentCall& c) {
  Layout l{};
  l.t = c.rows, l.d = c.x.cols, l.v = c.w.rows;
  l.type = float_type(c.x.codec);
  l.narrow = c.compute != Compute::fp32 && device_limits().capability >= 80;
  l.chunk = std::clamp(kLogitBytes / (l.v * 4) / 128 * 128, kLeastChunk, kMostChunk);
  l.chunk = std::min(l.chunk, l.t);
  l.words = std::clamp(kPanelBytes / (l.d * 4) / 256 * 256, std::int64_t{256}, std::int64_t{8192});
  // In place, or in a format of which only all rows can be decoded: one product.
  if ((l.narrow && c.w.codec == Codec::bf16) || l.d % 8) l.words = l.v;
  std::size_t at = 0;
  auto take = [&](std::int64_t bytes) {
    const std::size_t here = at;
    at += aligned(static_cast<std::size_t>(bytes));
    return here;
  };
  l.kept = take(l.t * 4);
  l.count = take(4);
  l.losses = take(l.t * 8);
  l.rows = take(l.chunk * l.d * static_cast<std::int64_t>(size_of(l.type)));
  l.logits = take(l.chunk * l.v * 4);
  l.dx = take(l.chunk * l.d * 4);
  GemmTerm term;
  const std::size_t forward = gemm_workspace(logits_product(c, l, term, l.chunk, nullptr, nullptr));
  const std::size_t back =
      gemm_workspace(gradient_product(c, l, term, l.chunk, 0, nullptr, nullptr));
  const std::int64_t rest =
      l.v % l.words ? l.v / l.words * l.words : 0;  // a shorter block may be split otherwise
  const std::size_t last =
      gemm_workspace(gradient_product(c, l, term, l.chunk, rest, nullptr, nullptr));
  l.gemm = take(static_cast<std::int64_t>(std::max({forward, back, last})));
  l.total = at;
  return l;
}

}  // namespace

std::size_t linear_xent_workspace(const LinearXentCall& call) { return layout_of(call).total; }

void linear_xent(const LinearXentCall& c, void* workspace, cudaStream_t stream) {
  const Layout l = layout_of(c);
  auto* base = static_cast<char*>(workspace);
  auto* kept = reinterpret_cast<std::int32_t*>(base + l.kept);
  auto* count = reinterpret_cast<std::int32_t*>(base + l.count);
  auto* losses = reinterpret_cast<double*>(base + l.losses);
  list_labelled(c.labels, l.t, l.v, kept, count, c.faults, stream);
  if (c.dx)
    check(cudaMemsetAsync(c.dx, 0, static_cast<std::size_t>(l.t * l.d) * size_of(l.type), stream),
          "cudaMemsetAsync");
  for (std::int64_t first = 0; first < l.t; first += l.chunk) {
    const std::int64_t m = std::min(l.chunk, l.t - first);
    const auto first32 = static_cast<std::int32_t>(first), m32 = static_cast<std::int32_t>(m);
    gather_rows(c.x.planes.data[0], l.type, l.d, kept, count, first32, m32, base + l.rows, stream);
    GemmTerm term;
    GemmProblem p = logits_product(c, l, term, l.chunk, base + l.rows, base + l.logits);
    p.live = count, p.live_from = first32;
    gemm(p, base + l.gemm, stream);
    SoftmaxXent s;
    s.logits = reinterpret_cast<float*>(base + l.logits);
    s.vocab = l.v;
    s.labels = c.labels, s.kept = kept, s.count = count, s.first = first32, s.chunk = m32;
    s.scale = c.scale, s.losses = losses;
    s.gradient = c.dx != nullptr, s.gradient_bf16 = l.narrow;
    softmax_xent(s, stream);
    if (!c.dx) continue;
    for (std::int64_t word = 0; word < l.v; word += l.words) {
      p = gradient_product(c, l, term, l.chunk, word, base + l.logits, base + l.dx);
      p.live = count, p.live_from = first32;
      gemm(p, base + l.gemm, stream);
    }
    scatter_rows(reinterpret_cast<const float*>(base + l.dx), l.d, kept, count, first32, m32, c.dx,
                 l.type, stream);
  }
  if (c.loss) sum_losses(losses, count, c.scale, c.loss, stream);
}

}  // namespace supersonic::cuda
