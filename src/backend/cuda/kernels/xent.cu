#include "backend/cuda/kernels/xent.h"

#include <algorithm>

#include "backend/cuda/kernels/decode.h"
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/panel.h"
#include "backend/cuda/kernels/xent_parts.h"
#include "backend/cuda/kernels/xent_rows.h"

namespace supersonic::cuda {
namespace {

constexpr std::int64_t kPanelBytes = 64 << 20;  // of the head, decoded
constexpr std::int64_t kLongestSum = 2048;      // words that one fp32 run adds into dx

struct Layout {
  std::int64_t t, d, v, chunk, words;  // rows of a chunk, words of a slice
  std::int64_t ld;                     // of the logits, f32
  DType x_type, type;                  // of x; of rows and weights as they are multiplied
  bool narrow;                         // that is bf16, in the tensor cores
  bool decoded;                        // slices are copied into the panel
  bool whole_panel;                    // all of them at once
  std::size_t kept, count, labels, losses, top, sum, target, decay, rows, logits, dx, panel, gemm,
      total;
};

// logits (m, words) = rows (m, D) * W^T
GemmProblem logits_product(const LinearXentCall& c, const Layout& l, GemmTerm& term, const char* at,
                           const MatrixRef& w) {
  term = {dense(at + l.rows, l.type, l.chunk, l.d, l.d), false, w, false};
  GemmProblem p;
  p.m = l.chunk, p.n = w.rows, p.ldy = l.ld;
  p.terms = {&term, 1};
  p.y = const_cast<char*>(at) + l.logits;
  p.compute = c.compute;
  return p;
}

// dx (m, D) = decay * dx + exponentials (m, words) * W
GemmProblem sums_product(const LinearXentCall& c, const Layout& l, GemmTerm& term, const char* at,
                         const MatrixRef& w, bool first) {
  term = {dense(at + l.logits, l.narrow ? DType::bf16 : DType::f32, l.chunk, w.rows,
                l.narrow ? 2 * l.ld : l.ld),
          false, w, true};
  GemmProblem p;
  p.m = l.chunk, p.n = l.d, p.ldy = l.d;
  p.terms = {&term, 1};
  p.y = const_cast<char*>(at) + l.dx;
  p.accumulate = !first;
  p.decay = reinterpret_cast<const float*>(at + l.decay);
  p.compute = c.compute;
  p.longest_sum = l.narrow ? 0 : kLongestSum;
  return p;
}

// Words word .. word + count - 1, where and as they are multiplied.
MatrixRef slice_of(const LinearXentCall& c, const Layout& l, const char* at, std::int64_t word) {
  const std::int64_t count = std::min(l.words, l.v - word);
  if (!l.decoded) {
    MatrixRef w = c.w;
    w.first_row += word;
    w.rows = count;
    return w;
  }
  const std::int64_t skipped = l.whole_panel ? word : 0;
  return dense(at + l.panel + skipped * l.d * static_cast<std::int64_t>(size_of(l.type)), l.type,
               count, l.d, l.d);
}

void decode_words(const LinearXentCall& c, const Layout& l, char* at, std::int64_t word,
                  std::int64_t count, const std::int32_t* live, std::int32_t live_from,
                  cudaStream_t stream) {
  PanelCall p;
  p.codec = c.w.codec;
  p.planes = c.w.planes;
  p.cols = p.width = l.d;
  p.row = c.w.first_row + word, p.rows = count;
  p.out = at + l.panel;
  p.out_type = l.type;
  p.live = live, p.live_from = live_from;
  decode_panel(p, stream);
}

// Chunks and slices: as large as their limits allow, and all of about one size.
void cut(Layout& l) {
  const auto element = static_cast<std::int64_t>(size_of(l.type));
  l.chunk = std::min(l.t, round_up(ceil_div(l.t, ceil_div(l.t, kMostRows)), 128));
  // Of a matrix whose rows are not whole pieces, all can be decoded or nothing (kernels/panel.h).
  l.whole_panel = l.decoded && l.d % 8;
  std::int64_t words = std::min(kMostSliceWords, kLogitBytes / (l.chunk * 4));
  if (l.decoded) words = std::min(words, kPanelBytes / (l.d * element));
  words = std::max<std::int64_t>(words / 256 * 256, 256);
  l.words = std::min(round_up(ceil_div(l.v, ceil_div(l.v, words)), 256), l.v);
  l.ld = round_up(l.words, 8);
}

Layout layout_of(const LinearXentCall& c) {
  Layout l{};
  l.t = c.rows, l.d = c.x.cols, l.v = c.w.rows;
  l.x_type = float_type(c.x.codec);
  l.narrow = c.compute != Compute::fp32 && device_limits().capability >= 80;
  l.type = l.narrow ? DType::bf16 : DType::f32;
  l.decoded = l.narrow ? c.w.codec != Codec::bf16 : quantized(c.w.codec);
  cut(l);
  const auto element = static_cast<std::int64_t>(size_of(l.type));
  std::size_t at = 0;
  auto take = [&](std::int64_t bytes) {
    const std::size_t here = at;
    at += static_cast<std::size_t>(round_up(bytes, 256));
    return here;
  };
  l.kept = take(l.t * 4);
  l.count = take(4);
  l.losses = take(l.t * 8);
  l.labels = take(l.chunk * 4);
  l.top = take(l.chunk * 4);
  l.sum = take(l.chunk * 8);
  l.target = take(l.chunk * 4);
  l.decay = take(l.chunk * 4);
  l.rows = take(l.chunk * l.d * element);
  l.logits = take(l.chunk * std::max(l.ld, l.d) * 4);  // in the end, the words of the labels
  l.dx = take(l.chunk * l.d * 4);
  if (l.decoded) l.panel = take((l.whole_panel ? l.v : l.words) * l.d * element);
  std::size_t most = 0;
  // A shorter slice may be split into more parts.
  for (const std::int64_t word : {std::int64_t{0}, (l.v - 1) / l.words * l.words}) {
    GemmTerm term;
    const MatrixRef w = slice_of(c, l, nullptr, word);
    most = std::max({most, gemm_workspace(logits_product(c, l, term, nullptr, w)),
                     gemm_workspace(sums_product(c, l, term, nullptr, w, word == 0))});
  }
  l.gemm = take(static_cast<std::int64_t>(most));
  l.total = at;
  return l;
}

ChunkRows rows_of(const LinearXentCall& c, const Layout& l, char* at, std::int64_t first) {
  ChunkRows r;
  r.first = static_cast<std::int32_t>(first);
  r.chunk = static_cast<std::int32_t>(std::min(l.chunk, l.t - first));
  r.kept = reinterpret_cast<std::int32_t*>(at + l.kept);
  r.count = reinterpret_cast<std::int32_t*>(at + l.count);
  r.label = reinterpret_cast<std::int32_t*>(at + l.labels);
  r.top = reinterpret_cast<float*>(at + l.top);
  r.sum = reinterpret_cast<double*>(at + l.sum);
  r.target = reinterpret_cast<float*>(at + l.target);
  r.decay = reinterpret_cast<float*>(at + l.decay);
  r.scale = c.scale;
  return r;
}

// One slice: its logits, their exponentials, and those times the slice.
void add_slice(const LinearXentCall& c, const Layout& l, const ChunkRows& rows, char* at,
               std::int64_t word, cudaStream_t stream) {
  const MatrixRef w = slice_of(c, l, at, word);
  if (l.decoded && !l.whole_panel)
    decode_words(c, l, at, word, w.rows, rows.count, rows.first, stream);
  GemmTerm term;
  GemmProblem p = logits_product(c, l, term, at, w);
  p.live = rows.count, p.live_from = rows.first;
  gemm(p, at + l.gemm, stream);
  SliceOfWords s;
  s.logits = reinterpret_cast<float*>(at + l.logits);
  s.ld = l.ld;
  s.word = static_cast<std::int32_t>(word), s.words = static_cast<std::int32_t>(w.rows);
  s.gradient = c.dx != nullptr, s.gradient_bf16 = l.narrow;
  softmax_slice(s, rows, stream);
  if (!c.dx) return;
  p = sums_product(c, l, term, at, w, word == 0);
  p.live = rows.count, p.live_from = rows.first;
  gemm(p, at + l.gemm, stream);
}

}  // namespace

std::size_t linear_xent_workspace(const LinearXentCall& call) { return layout_of(call).total; }

void linear_xent(const LinearXentCall& c, void* workspace, cudaStream_t stream) {
  const Layout l = layout_of(c);
  auto* at = static_cast<char*>(workspace);
  auto* losses = reinterpret_cast<double*>(at + l.losses);
  const ChunkRows all = rows_of(c, l, at, 0);
  list_labelled(c.labels, l.t, l.v, all.kept, all.count, c.faults, stream);
  if (c.dx)
    check(cudaMemsetAsync(c.dx, 0, static_cast<std::size_t>(l.t * l.d) * size_of(l.x_type), stream),
          "cudaMemsetAsync");
  for (float* of_rows : {c.lse, c.nll})
    if (of_rows)
      check(cudaMemsetAsync(of_rows, 0, static_cast<std::size_t>(l.t) * sizeof(float), stream),
            "cudaMemsetAsync");
  if (l.whole_panel) decode_words(c, l, at, 0, l.v, nullptr, 0, stream);
  for (std::int64_t first = 0; first < l.t; first += l.chunk) {
    const ChunkRows rows = rows_of(c, l, at, first);
    gather_rows(c.x.planes.data[0], l.x_type, l.d, c.labels, rows, at + l.rows, l.type, stream);
    for (std::int64_t word = 0; word < l.v; word += l.words)
      add_slice(c, l, rows, at, word, stream);
    auto* words_of_labels = reinterpret_cast<float*>(at + l.logits);
    if (c.dx) {
      RowReader r;
      r.format = c.format;
      r.table = c.w.planes.data[0], r.planes = c.w.planes;
      r.table_type = float_type(c.w.codec);
      r.ids = rows.label;
      r.out = words_of_labels;
      r.rows = rows.chunk, r.d = l.d, r.table_rows = l.v;
      read_rows(r, c.faults, stream);
    }
    const FinishedRows finished{losses, c.lse, c.nll, c.dx, l.x_type};
    finish_rows(reinterpret_cast<const float*>(at + l.dx), words_of_labels, l.d, rows, finished,
                stream);
  }
  if (c.loss) sum_losses(losses, all.count, c.scale, c.loss, stream);
}

}  // namespace supersonic::cuda
