#include "ops/gemm.h"

#include "ops/accumulate.h"
#include "ops/batch_matmul.h"
#include "ops/dequantize.h"
#include "ops/embedding.h"
#include "ops/linear_xent.h"
#include "ops/map/arithmetic.h"
#include "ops/mixture.h"
#include "ops/rms_norm.h"

namespace supersonic {
namespace {

struct TermShape {
  std::int64_t m, n, k;
};

void infer_terms(Infer& i, const Gemm& a, int first, std::int64_t& m, std::int64_t& n) {
  const int count = static_cast<int>(i.in.size()) - first;
  i.check(count >= 2 && count % 2 == 0 && count / 2 <= kMaxGemmTerms, "takes pairs of operands, at most {}", kMaxGemmTerms);
  for (int t = 0; t < count / 2; ++t) {
    const Shape &x = i.shape(first + 2 * t), &w = i.shape(first + 2 * t + 1);
    const bool tx = a.trans_x >> t & 1, tw = a.trans_w >> t & 1;
    i.check(x.rank == 2 && w.rank == 2, "operands of term {} must be matrices", t);
    i.check(x[tx ? 0 : 1] == w[tw ? 0 : 1], "term {}: {} does not multiply {}", t, to_string(x), to_string(w));
    const std::int64_t rows = x[tx ? 1 : 0], cols = w[tw ? 1 : 0];
    if (t == 0) {
      m = rows;
      n = cols;
    }
    i.check(rows == m && cols == n, "term {} has another shape than the first", t);
  }
}

// Arithmetic type of a definition: fp64 as soon as an operand is.
DType wide(Args in) {
  for (const auto& t : in)
    if (t.dtype() == DType::f64) return DType::f64;
  return DType::f32;
}

Tensor sum_of_products(const Gemm& a, Args in, DType type) {
  Tensor total;
  for (std::size_t t = 0; t < in.size() / 2; ++t) {
    Tensor x = cast(in[2 * t], type), w = dequantize(in[2 * t + 1], type);
    if (a.trans_x >> t & 1) x = transpose_last(x);
    if (!(a.trans_w >> t & 1)) w = transpose_last(w);
    const Tensor product = batch_matmul(x, w);
    total = total ? add(total, product) : product;
  }
  return a.alpha == 1 ? total : scale(total, a.alpha);
}

}  // namespace

void Gemm::infer(Infer& i) {
  const auto& a = i.attrs.as<Gemm>();
  std::int64_t m = 0, n = 0;
  infer_terms(i, a, 0, m, n);
  i.output(Shape{m, n}, static_cast<DType>(a.dtype));
}

Tensors Gemm::define(const Gemm& a, Args in) {
  return {cast(sum_of_products(a, in, wide(in)), static_cast<DType>(a.dtype))};
}

Grads Gemm::backward(const Gemm& a, const BackwardArgs& b) {
  Grads grads(b.in.size());
  const Tensor& dy = b.dy[0];  // (M,N)
  for (std::size_t t = 0; t < b.in.size() / 2; ++t) {
    const Tensor &x = b.in[2 * t], &w = b.in[2 * t + 1];
    const bool tx = a.trans_x >> t & 1, tw = a.trans_w >> t & 1;
    if (b.need[2 * t]) {
      // dX (M,K) = dy · W; stored (K,M) when transposed: W^T · dy^T
      const GemmTermArgs term = tx ? GemmTermArgs{w, dy, !tw ? true : false, false} : GemmTermArgs{dy, w, false, !tw};
      grads[2 * t] = gemm(std::span(&term, 1), x.dtype(), Where::current(), a.alpha);
    }
    if (b.need[2 * t + 1] && !w.spec().format) {
      // dW (N,K) = dy^T · X; stored (K,N) when transposed: X^T · dy
      const GemmTermArgs term = tw ? GemmTermArgs{x, dy, !tx, true} : GemmTermArgs{dy, x, true, !tx};
      grads[2 * t + 1] = gemm(std::span(&term, 1), w.dtype(), Where::current(), a.alpha);
    }
  }
  return grads;
}

std::vector<Case> Gemm::cases() {
  auto attrs = [](int tx, int tw, float alpha = 1) {
    return Attrs::of(Gemm{static_cast<std::int32_t>(DType::f32), static_cast<std::uint16_t>(tx), static_cast<std::uint16_t>(tw), 0, alpha});
  };
  std::vector<Case> cases = {
      {{normal({5, 7}), normal({3, 7})}, attrs(0, 0), "nt"},
      {{normal({5, 7}), normal({7, 3})}, attrs(0, 1), "nn"},
      {{normal({7, 5}), normal({7, 3})}, attrs(1, 1), "tn"},
      {{normal({7, 5}), normal({3, 7})}, attrs(1, 0), "tt"},
      {{normal({33, 65}), normal({49, 65}), normal({33, 16}), normal({49, 16})}, attrs(0, 0), "two_terms"},
      {{normal({9, 40}), normal({24, 40}), normal({9, 16}), normal({16, 24}), normal({9, 5}), normal({24, 5})}, attrs(0, 2), "three_terms"},
      {{normal({5, 7}), normal({3, 7})}, attrs(0, 0, -0.75f), "scaled"},
      {{normal({33, 65}), normal({49, 65}), normal({33, 16}), normal({16, 49})}, attrs(0, 2, 1.5f), "two_terms_scaled"},
  };
  for (const char* format : {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq2_xxs", "iq2_xs",
                             "iq3_xxs", "iq1_s", "iq4_nl", "iq3_s", "iq2_s", "iq4_xs", "iq1_m", "tq1_0", "tq2_0", "mxfp4", "nvfp4",
                             "q1_0", "q2_0", "nf4"}) {
    const Format& f = *find_format(format);
    const std::int64_t k = f.row_blocks && 96 % f.block ? 512 : 96;
    Case c{{normal({19, k}), {Shape{35, k}, CaseInput::normal, 0, 0, format}}, attrs(0, 0), std::string("nt_") + format};
    c.differences = false;
    cases.push_back(c);
    Case d{{normal({19, 35}), {Shape{35, k}, CaseInput::normal, 0, 0, format}}, attrs(0, 1), std::string("nn_") + format};
    d.differences = false;
    cases.push_back(d);
    Case e = c;
    e.inputs[0] = normal({1, k});
    e.name = std::string("row_") + format;
    cases.push_back(e);
  }
  // Few rows and whole chunks of 256: K of fewer chunks than a block has warps, and of more.
  struct Rows {
    std::int64_t m, n, k;
  };
  for (const char* format : {"q4_0", "q4_1", "q8_0", "q3_k", "q4_k", "q5_k", "q6_k", "nf4"}) {
    for (const Rows& r : {Rows{1, 35, 2304}, Rows{3, 48, 512}, Rows{8, 19, 2304}}) {
      Case few{{normal({r.m, r.k}), {Shape{r.n, r.k}, CaseInput::normal, 0, 0, format}}, attrs(0, 0), fmt::format("{}_rows_{}", r.m, format)};
      few.differences = false;
      cases.push_back(few);
    }
  }
  Case adapter{{normal({2, 512}), {Shape{40, 512}, CaseInput::normal, 0, 0, "q4_k"}, normal({2, 16}), normal({40, 16})},
               attrs(0, 0), "2_rows_q4_k_and_adapter"};
  adapter.differences = false;
  cases.push_back(adapter);
  return cases;
}

void GemmAccumulate::infer(Infer& i) {
  std::int64_t m = 0, n = 0;
  infer_terms(i, i.attrs.as<GemmAccumulate>().gemm, 1, m, n);
  i.check(i.shape(0) == Shape{m, n}, "target must be {}", to_string(Shape{m, n}));
}

Tensors GemmAccumulate::define(const GemmAccumulate& a, Args in) {
  accumulate(in[0], cast(sum_of_products(a.gemm, in.subspan(1), wide(in)), in[0].dtype()));
  return {};
}

Tensor gemm(std::span<const GemmTermArgs> terms, DType dtype, Where where, float alpha) {
  Gemm a{static_cast<std::int32_t>(dtype), 0, 0, 0, alpha};
  Tensors in;
  for (std::size_t t = 0; t < terms.size(); ++t) {
    in.push_back(terms[t].x);
    in.push_back(terms[t].w);
    a.trans_x = static_cast<std::uint16_t>(a.trans_x | terms[t].trans_x << t);
    a.trans_w = static_cast<std::uint16_t>(a.trans_w | terms[t].trans_w << t);
    a.sensitive = static_cast<std::uint16_t>(a.sensitive | terms[t].sensitive << t);
  }
  return record(op<Gemm>(), Attrs::of(a), in, where)[0];
}

Tensor linear(const Tensor& x, const Tensor& w, DType dtype, Where where) {
  const GemmTermArgs term{x, w};
  return gemm(std::span(&term, 1), dtype, where);
}
Tensor linear(const Tensor& x, const Tensor& w, Where where) { return linear(x, w, x.dtype(), where); }

// --- folding ----------------------------------------------------------------------------------------------------------------

bool Add::fold(const FoldArgs& f, FoldNode& out) {
  const FoldNode *l = f.producers[0], *r = f.producers[1];
  if (fold_rms_norm_grad(f, out)) return true;
  if (!l || !r || l->op != &op<Gemm>() || r->op != &op<Gemm>()) return false;
  if (!(l->out == f.node.out) || !(r->out == f.node.out)) return false;
  const std::size_t left = l->in.size() / 2, right = r->in.size() / 2;
  if (left + right > kMaxGemmTerms) return false;
  Gemm a = l->attrs.as<Gemm>();
  const Gemm b = r->attrs.as<Gemm>();
  if (a.alpha != 1 || b.alpha != 1) return false;
  a.trans_x = static_cast<std::uint16_t>(a.trans_x | b.trans_x << left);
  a.trans_w = static_cast<std::uint16_t>(a.trans_w | b.trans_w << left);
  a.sensitive = static_cast<std::uint16_t>(a.sensitive | b.sensitive << left);
  out = *l;
  out.attrs = Attrs::of(a);
  out.in.insert(out.in.end(), r->in.begin(), r->in.end());
  return true;
}

bool Scale::fold(const FoldArgs& f, FoldNode& out) {
  const FoldNode* g = f.producers[0];
  if (!g || g->op != &op<Gemm>()) return false;
  for (const Spec& s : g->in_specs)
    if (s.format) return false;
  Gemm a = g->attrs.as<Gemm>();
  a.alpha = static_cast<float>(a.alpha * f.node.attrs.as<Scale>().factor);
  out = *g;
  out.attrs = Attrs::of(a);
  return true;
}

bool Accumulate::fold(const FoldArgs& f, FoldNode& out) {
  if (fold_embedding_grad(f, out) || fold_linear_xent_weight_grad(f, out) || fold_grouped_linear_grad(f, out)) return true;
  const FoldNode* g = f.producers[1];
  if (!g || g->op != &op<Gemm>() || g->in.size() + 1 > kMaxInputs) return false;
  out = *g;
  out.op = &op<GemmAccumulate>();
  out.attrs = Attrs::of(GemmAccumulate{g->attrs.as<Gemm>()});
  out.in.insert(out.in.begin(), f.node.in[0]);
  return true;
}

}  // namespace supersonic
