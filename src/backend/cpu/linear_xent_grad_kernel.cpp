// The gradient of the head, over chunks of rows with a label: their logits are computed again,
// become the gradient along the logits in place, and that, transposed, times the rows is added to
// dW. Workspace: chunk * V * 4 bytes, the packed rows, and the products' own. Arithmetic: 4 T' V D,
// T' = rows with a label; dW is read and written once for each chunk.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/gemm.h"
#include "backend/cpu/kernels/softmax_xent.h"
#include "backend/cpu/labelled_rows.h"
#include "ops/linear_xent.h"

namespace supersonic {
namespace {

using cpu::pool_of;

constexpr std::int64_t kChunk = 256;  // rows

constexpr std::size_t aligned(std::size_t n) { return (n + 63) / 64 * 64; }

// first: index of x among the inputs; 1 where input 0 is the target.
struct Layout {
  std::int64_t t, d, v, chunk;
  DType type;
  std::size_t kept, rows, labels, lse, nll, logits, gemm,
      total;  // offsets of the workspace's parts
};

struct Product {
  cpu::GemmTerm term;
  cpu::GemmProblem problem;
};

cpu::MatrixRef matrix(const void* data, DType type, std::int64_t rows, std::int64_t cols) {
  cpu::MatrixRef m;
  m.data = data;
  m.dtype = type;
  m.rows = rows;
  m.cols = m.ld = cols;
  return m;
}

// y (M, N) = or += X · W
void product(Product& c, const Problem& p, const cpu::GemmTerm& term, std::int64_t m,
             std::int64_t n, void* y, bool accumulate) {
  c.term = term;
  c.problem = {};
  c.problem.m = m;
  c.problem.n = n;
  c.problem.terms = {&c.term, 1};
  c.problem.y = y;
  c.problem.y_dtype = DType::f32;
  c.problem.ldy = n;
  c.problem.accumulate = accumulate;
  c.problem.compute = p.compute;
}

// logits (m, V) = rows (m, D) · W^T
void logits_product(Product& c, const Problem& p, const Layout& l, int first, std::int64_t m,
                    const void* w, std::byte* base) {
  product(c, p,
          {matrix(base + l.rows, l.type, m, l.d), false,
           matrix(w, p.in[first + 1].spec.dtype, l.v, l.d), false},
          m, l.v, base + l.logits, false);
}

// dW (V, D) += dlogits (m, V)^T · rows (m, D)
void weight_product(Product& c, const Problem& p, const Layout& l, std::int64_t m, void* dw,
                    std::byte* base) {
  product(c, p,
          {matrix(base + l.logits, DType::f32, m, l.v), true, matrix(base + l.rows, l.type, m, l.d),
           true},
          l.v, l.d, dw, true);
}

Layout layout_of(const Problem& p, int first) {
  Layout l{};
  const Spec& x = p.in[first].spec;
  l.t = x.shape[0];
  l.d = x.shape[1];
  l.v = p.in[first + 1].spec.shape[0];
  l.type = x.dtype;
  l.chunk = std::min(kChunk, l.t);
  std::size_t at = 0;
  auto take = [&](std::size_t bytes) {
    const std::size_t here = at;
    at += aligned(bytes);
    return here;
  };
  l.kept = take(l.t * sizeof(std::int32_t));
  l.rows = take(l.chunk * l.d * size_of(l.type));
  l.labels = take(l.chunk * sizeof(std::int32_t));
  l.lse = take(l.chunk * sizeof(float));
  l.nll = take(l.chunk * sizeof(float));
  l.logits = take(l.chunk * l.v * sizeof(float));
  Product logits, weight;
  logits_product(logits, p, l, first, l.chunk, nullptr, nullptr);
  weight_product(weight, p, l, l.chunk, nullptr, nullptr);
  l.gemm = take(std::max(cpu::gemm_workspace(logits.problem, p.threads),
                         cpu::gemm_workspace(weight.problem, p.threads)));
  l.total = at;
  return l;
}

// dw (V, D) f32 is added to.
void add_gradient(const Problem& p, const Pointers& ptr, int first, float cap, void* dw,
                  Lane& lane) {
  const Layout l = layout_of(p, first);
  auto& pool = pool_of(lane);
  auto* base = static_cast<std::byte*>(ptr.workspace);
  const auto* x = static_cast<const std::byte*>(ptr.in[first]);
  const auto* labels = static_cast<const std::int32_t*>(ptr.in[first + 2]);
  const auto values = [&](int i) { return static_cast<const float*>(ptr.in[first + i]); };
  auto* kept = reinterpret_cast<std::int32_t*>(base + l.kept);
  const std::size_t row = l.d * size_of(l.type);
  const std::int64_t count = cpu::list_labelled(labels, l.t, kept);
  cpu::SoftmaxXent s;
  s.logits = base + l.logits;
  s.labels = reinterpret_cast<const std::int32_t*>(base + l.labels);
  s.known_lse = reinterpret_cast<const float*>(base + l.lse);
  s.known_loss = reinterpret_cast<const float*>(base + l.nll);
  s.scale = values(3)[0] * values(4)[0];
  s.cap = cap;
  s.vocab = s.stride = l.v;
  for (std::int64_t at = 0; at < count; at += l.chunk) {
    const std::int64_t m = s.rows = std::min(l.chunk, count - at);
    for (std::int64_t i = 0; i < m; ++i) {
      const std::int32_t from = kept[at + i];
      std::memcpy(base + l.rows + i * row, x + from * row, row);
      reinterpret_cast<std::int32_t*>(base + l.labels)[i] = labels[from];
      reinterpret_cast<float*>(base + l.lse)[i] = values(5)[from];
      reinterpret_cast<float*>(base + l.nll)[i] = values(6)[from];
    }
    Product c;
    logits_product(c, p, l, first, m, ptr.in[first + 1], base);
    cpu::gemm(pool, c.problem, base + l.gemm);
    cpu::softmax_xent_kernels().xent(pool, s);
    weight_product(c, p, l, m, dw, base);
    cpu::gemm(pool, c.problem, base + l.gemm);
  }
}

const char* reject(const Problem& p, int first) {
  const DType x = p.in[first].spec.dtype, w = p.in[first + 1].spec.dtype;
  if (x != DType::f32 && x != DType::bf16) return "x must be f32 or bf16";
  if (w != DType::f32 && w != DType::bf16 && w != DType::f16) return "W must be f32, bf16 or f16";
  for (int k = 3; k < 7; ++k)
    if (p.in[first + k].spec.dtype != DType::f32) return "scale, dloss, lse and nll must be f32";
  const Spec& dw = first ? p.in[0].spec : p.out[0].spec;
  return dw.dtype == DType::f32 ? nullptr : "dW must be f32";
}

}  // namespace

KERNEL(linear_xent_weight_grad) {
  return {.op = &op<LinearXentWeightGrad>(),
          .name = "cpu.linear_xent_weight_grad",
          .reject = [](const Problem& p) { return reject(p, 0); },
          .workspace = [](const Problem& p) { return layout_of(p, 0).total; },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                std::memset(ptr.out[0], 0, bytes_of(p.out[0].spec));
                add_gradient(p, ptr, 0, p.attr<LinearXentWeightGrad>().cap, ptr.out[0], lane);
              }};
}

KERNEL(linear_xent_weight_grad_accumulate) {
  return {.op = &op<LinearXentWeightGradAccumulate>(),
          .name = "cpu.linear_xent_weight_grad_accumulate",
          .reject = [](const Problem& p) { return reject(p, 1); },
          .workspace = [](const Problem& p) { return layout_of(p, 1).total; },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                add_gradient(p, ptr, 1, p.attr<LinearXentWeightGradAccumulate>().grad.cap,
                             ptr.in[0], lane);
              }};
}

}  // namespace supersonic
