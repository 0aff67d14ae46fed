// The head and the loss in one pass over chunks of rows. Rows without a label are left out before any arithmetic: they are
// packed away, and their gradient is zero. One chunk of logits (fp32) is all that ever exists: the workspace is
// chunk * V * 4 bytes, plus the packed rows and the products' own.
// Arithmetic: 2 T' V D for the loss, twice that with the gradient, T' = rows with a label.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/array.h"
#include "backend/cpu/kernels/gemm.h"
#include "backend/cpu/kernels/softmax_xent.h"
#include "backend/cpu/labelled_rows.h"
#include "ops/linear_xent.h"

namespace supersonic {
namespace {

using cpu::pool_of;

constexpr std::int64_t kChunk = 256;  // rows: the head's tiles are decoded once per chunk

constexpr std::size_t aligned(std::size_t n) { return (n + 63) / 64 * 64; }

struct Layout {
  std::int64_t t, d, v, chunk;
  DType type;
  std::size_t rows, prepared, kept, labels, loss, lse, logits, dx, gemm, total;  // offsets of the workspace's parts
};

struct HeadCall {
  cpu::GemmTerm term;
  cpu::GemmProblem problem;
};

// int8 arithmetic applies to the logits of a quantized head; their gradient stays in floats.
bool int8_head(const Problem& p) { return p.compute == Compute::int8 && p.in[1].spec.format; }

// dx sums over the whole vocabulary; in one run of fp32 additions the last bits of 49,152 terms would cost four digits. So it
// is summed in blocks of words, each added to dx once. Formats whose rows cannot be addressed one by one take a single block.
constexpr std::int64_t kWords = 1024;
std::int64_t words_per_block(const Problem& p) {
  const Spec& w = p.in[1].spec;
  return !w.format || (w.format->row_blocks && w.format->planes == 1) ? std::min(kWords, w.shape[0]) : w.shape[0];
}

// logits (m, V) = x (m, D) · W^T, or with `back` dx (m, D) += dlogits (m, words) · W[word...] of one block.
void head_call(HeadCall& c, const Problem& p, std::int64_t m, bool back, const void* x, void* y, const Pointers* ptr,
               std::int64_t word = 0) {
  const Spec &xs = p.in[0].spec, &ws = p.in[1].spec;
  const std::int64_t d = ws.shape[1], v = back ? std::min(words_per_block(p), ws.shape[0] - word) : ws.shape[0];
  cpu::MatrixRef w;
  w.dtype = ws.dtype;
  w.format = ws.format;
  w.rows = v;
  w.cols = w.ld = d;
  if (ptr) {
    const std::size_t row = w.format ? d / w.format->block * static_cast<std::size_t>(w.format->block_bytes) : d * size_of(w.dtype);
    auto from = [&](const void* data) { return static_cast<const std::byte*>(data) + word * row; };
    w.data = from(ptr->in[1]);
    if (w.format) w.planes = *ptr->planes[1];
    if (w.format && word) w.planes.data[0] = from(w.planes.data[0]);
  }
  cpu::MatrixRef a;
  a.data = static_cast<const float*>(x) + (back ? word : 0);
  a.dtype = back ? DType::f32 : int8_head(p) ? DType::i8 : xs.dtype;
  a.rows = m;
  a.cols = back ? v : d;
  a.ld = back ? ws.shape[0] : d;
  c.term = {a, false, w, back};
  c.problem = {};
  c.problem.m = m;
  c.problem.n = back ? d : v;
  c.problem.terms = {&c.term, 1};
  c.problem.y = y;
  c.problem.y_dtype = DType::f32;
  c.problem.accumulate = back && word > 0;
  c.problem.ldy = c.problem.n;
  c.problem.compute = p.compute;
}

Layout layout_of(const Problem& p) {
  Layout l{};
  l.t = p.in[0].spec.shape[0];
  l.d = p.in[0].spec.shape[1];
  l.v = p.in[1].spec.shape[0];
  l.type = p.in[0].spec.dtype;
  l.chunk = std::min(kChunk, l.t);
  const std::size_t row = l.d * size_of(l.type);
  std::size_t at = 0;
  auto take = [&](std::size_t bytes) {
    const std::size_t here = at;
    at += aligned(bytes);
    return here;
  };
  l.kept = take(l.t * sizeof(std::int32_t));
  l.rows = take(l.chunk * row);
  l.prepared = int8_head(p) ? take(cpu::int8_rows_bytes(l.chunk, l.d)) : 0;
  l.labels = take(l.chunk * sizeof(std::int32_t));
  l.loss = take(l.chunk * sizeof(float));
  l.lse = take(l.chunk * sizeof(float));
  l.logits = take(l.chunk * l.v * sizeof(float));
  l.dx = take(l.chunk * l.d * sizeof(float));
  HeadCall forward, back;
  head_call(forward, p, l.chunk, false, nullptr, nullptr, nullptr);
  head_call(back, p, l.chunk, true, nullptr, nullptr, nullptr);
  l.gemm = take(std::max(cpu::gemm_workspace(forward.problem, p.threads), cpu::gemm_workspace(back.problem, p.threads)));
  l.total = at;
  return l;
}

void launch_xent(const Problem& p, const Pointers& ptr, Lane& lane) {
  const Layout l = layout_of(p);
  auto& pool = pool_of(lane);
  auto* base = static_cast<std::byte*>(ptr.workspace);
  const auto* x = static_cast<const std::byte*>(ptr.in[0]);
  const auto* labels = static_cast<const std::int32_t*>(ptr.in[2]);
  const float scale = *static_cast<const float*>(ptr.in[3]);
  auto* dx = static_cast<std::byte*>(ptr.out[1]);
  auto* kept = reinterpret_cast<std::int32_t*>(base + l.kept);
  auto* chunk_labels = reinterpret_cast<std::int32_t*>(base + l.labels);
  auto* loss = reinterpret_cast<float*>(base + l.loss);
  const std::size_t row = l.d * size_of(l.type);
  const std::int64_t count = cpu::list_labelled(labels, l.t, kept);
  if (dx) std::memset(dx, 0, l.t * row);
  for (void* of_rows : {ptr.out[2], ptr.out[3]})
    if (of_rows) std::memset(of_rows, 0, l.t * sizeof(float));
  double total = 0;
  for (std::int64_t at = 0; at < count; at += l.chunk) {
    const std::int64_t m = std::min(l.chunk, count - at);
    for (std::int64_t i = 0; i < m; ++i) {
      std::memcpy(base + l.rows + i * row, x + kept[at + i] * row, row);
      chunk_labels[i] = labels[kept[at + i]];
    }
    HeadCall call;
    const std::byte* rows = base + l.rows;
    if (int8_head(p)) {
      cpu::quantize_int8_rows(pool, rows, l.type, m, l.d, l.d, base + l.prepared);
      rows = base + l.prepared;
    }
    head_call(call, p, m, false, rows, base + l.logits, &ptr);
    cpu::gemm(pool, call.problem, base + l.gemm);
    cpu::SoftmaxXent s;
    s.logits = base + l.logits;
    s.labels = chunk_labels;
    s.scale = scale;
    s.cap = p.attr<LinearXent>().cap;
    s.loss = loss;
    s.lse = reinterpret_cast<float*>(base + l.lse);
    s.rows = m;
    s.vocab = s.stride = l.v;
    s.gradient = dx != nullptr;
    cpu::softmax_xent_kernels().xent(pool, s);
    for (std::int64_t i = 0; i < m; ++i) {
      total += loss[i];
      if (ptr.out[2]) static_cast<float*>(ptr.out[2])[kept[at + i]] = s.lse[i];
      if (ptr.out[3]) static_cast<float*>(ptr.out[3])[kept[at + i]] = loss[i];
    }
    if (!dx) continue;
    for (std::int64_t word = 0; word < l.v; word += words_per_block(p)) {
      head_call(call, p, m, true, base + l.logits, base + l.dx, &ptr, word);
      cpu::gemm(pool, call.problem, base + l.gemm);
    }
    const auto* sums = reinterpret_cast<const float*>(base + l.dx);
    for (std::int64_t i = 0; i < m; ++i)
      cpu::array_kernels().cast(pool, sums + i * l.d, DType::f32, dx + kept[at + i] * row, l.type, l.d);
  }
  if (ptr.out[0]) *static_cast<float*>(ptr.out[0]) = static_cast<float>(total * scale);
}

}  // namespace

KERNEL(linear_xent) {
  return {.op = &op<LinearXent>(), .name = "cpu.linear_xent",
          .reject = [](const Problem& p) -> const char* {
            const DType x = p.in[0].spec.dtype, w = p.in[1].spec.dtype;
            if (x != DType::f32 && x != DType::bf16) return "x must be f32 or bf16";
            if (!p.in[1].spec.format && w != DType::f32 && w != DType::bf16 && w != DType::f16) return "W must be f32, bf16, f16 or quantized";
            if (p.in[3].spec.dtype != DType::f32) return "scale must be f32";
            return nullptr;
          },
          .workspace = [](const Problem& p) { return layout_of(p).total; },
          .launch = launch_xent};
}

}  // namespace supersonic
