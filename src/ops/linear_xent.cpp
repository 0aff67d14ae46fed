#include "ops/linear_xent.h"

#include "ops/accumulate.h"
#include "ops/batch_matmul.h"
#include "ops/dequantize.h"
#include "ops/fill.h"
#include "ops/gemm.h"
#include "ops/map/arithmetic.h"
#include "ops/map/transcendental.h"
#include "ops/reduce.h"

namespace supersonic {

Tensor linear_xent(const Tensor& x, const Tensor& w, const Tensor& labels, const Tensor& scale, float cap, Where where) {
  return record(LinearXent{cap}, {x, w, labels, scale}, where)[0];
}

void LinearXent::infer(Infer& i) {
  i.inputs(4);
  const Shape &x = i.shape(0), &w = i.shape(1);
  i.check(x.rank == 2 && w.rank == 2 && x[1] == w[1], "x must be (T, D) and W (V, D)");
  i.check(i.shape(2) == Shape{x[0]} && i.shape(3) == Shape{1}, "labels must be (T) and scale (1)");
  i.output(Shape{1}, i.spec(0).dtype == DType::f64 ? DType::f64 : DType::f32);
  i.output(x, i.spec(0).dtype);
  for (int k = 0; k < 2; ++k) i.output(Shape{x[0]}, i.spec(0).dtype == DType::f64 ? DType::f64 : DType::f32);
}

namespace {

// What loss and gradients are made of, of one definition's operands.
struct Scores {
  Tensor logits, bent;   // (T, V), capped; their tanh where they are
  Tensor chosen, kept;   // (T, V) 1 at the label; (T, 1) 1 where there is one
  Scores(float cap, const Tensor& x, const Tensor& w, const Tensor& labels, DType wide) {
    const std::int64_t t = x.dim(0), v = w.dim(0);
    logits = batch_matmul(x, transpose_last(w));
    if (cap > 0) {
      bent = tanh(scale(logits, 1 / static_cast<double>(cap)));
      logits = scale(bent, cap);
    }
    const Tensor label = cast(reshape(labels, {t, 1}), wide);
    chosen = equal(reshape(iota(v, wide), {1, v}), label);
    kept = less(fill({1, 1}, wide, -0.5), label);
  }
  // Along the logits before the cap, from that of softmax and logarithm.
  Tensor gradient(const Tensor& of_softmax, const Tensor& factor) const {
    const Tensor d = mul(mul(of_softmax, kept), factor);
    return bent ? mul(d, shift(scale(mul(bent, bent), -1), 1)) : d;
  }
};

}  // namespace

Tensors LinearXent::define(const LinearXent& a, Args in) {
  const DType wide = in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor x = cast(in[0], wide), w = dequantize(in[1], wide), factor = reshape(cast(in[3], wide), {1, 1});
  const Scores s(a.cap, x, w, in[2], wide);
  const Tensor top = max(s.logits, -1), e = exp(sub(s.logits, top)), total = sum(e, -1);
  const Tensor lse = add(log(total), top), nll = mul(s.kept, sub(lse, sum(mul(s.logits, s.chosen), -1)));
  const Tensor dlogits = s.gradient(sub(div(e, total), s.chosen), factor);
  const Shape rows{in[0].dim(0)};
  return {reshape(mul(sum(nll, 0), factor), {1}), cast(batch_matmul(dlogits, w), in[0].dtype()), reshape(mul(s.kept, lse), rows),
          reshape(nll, rows)};
}

Grads LinearXent::backward(const LinearXent& a, const BackwardArgs& b) {
  CHECK(!b.dy[1] && !b.dy[2] && !b.dy[3], "linear_xent: its loss alone is differentiable");
  Grads g = {mul(b.out[1], cast(reshape(b.dy[0], {1, 1}), b.in[0].dtype()))};
  if (b.need[1] && !b.in[1].spec().format)
    g.push_back(record(LinearXentWeightGrad{a.cap}, {b.in[0], b.in[1], b.in[2], b.in[3], b.dy[0], b.out[2], b.out[3]}, Where::current())[0]);
  return g;
}

std::vector<Case> LinearXent::cases() {
  auto labels = [](Shape s, double v) { return CaseInput{s, CaseInput::index, -2, v, nullptr, CaseInput::i32}; };
  const CaseInput factor{Shape{1}, CaseInput::constant, 0.25, 0, nullptr, CaseInput::f32};
  Case big{{normal({37, 64}), normal({515, 64}), labels({37}, 515), factor}, Attrs::of(LinearXent{})};
  Case quant{{normal({37, 96}), {Shape{515, 96}, CaseInput::normal, 0, 0, "q8_0"}, labels({37}, 515), factor}, Attrs::of(LinearXent{}), "q8_0"};
  Case first{{normal({6, 8}), normal({11, 8}), labels({6}, 1), factor}, Attrs::of(LinearXent{}), "first_word"};  // label 0, or none
  Case wide{{normal({9, 32}), normal({2500, 32}), labels({9}, 2500), factor}, Attrs::of(LinearXent{}), "many_words"};
  big.differences = quant.differences = wide.differences = false;
  Case capped = big, capped_small{{normal({5, 8}), normal({11, 8}), labels({5}, 11), factor}, Attrs::of(LinearXent{1.5f}), "capped"};
  capped.attrs = Attrs::of(LinearXent{3.0f}), capped.name = "capped";
  return {{{normal({5, 8}), normal({11, 8}), labels({5}, 11), factor}, Attrs::of(LinearXent{})}, first, big, wide, quant, capped, capped_small};
}

// --- the gradient of W ------------------------------------------------------------------------------------------------------

void LinearXentWeightGrad::infer(Infer& i) {
  i.inputs(7);
  const Shape &x = i.shape(0), &w = i.shape(1);
  i.check(x.rank == 2 && w.rank == 2 && x[1] == w[1], "x must be (T, D) and W (V, D)");
  i.check(!i.spec(1).format, "W is {} and cannot be differentiated", to_string(i.spec(1)));
  for (int k : {2, 5, 6}) i.check(i.shape(k) == Shape{x[0]}, "labels, lse and nll must be (T)");
  i.check(i.shape(3) == Shape{1} && i.shape(4) == Shape{1}, "scale and dloss must be (1)");
  i.output(w, i.spec(0).dtype == DType::f64 ? DType::f64 : DType::f32);
}

Tensors LinearXentWeightGrad::define(const LinearXentWeightGrad& a, Args in) {
  const DType wide = in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor x = cast(in[0], wide), w = cast(in[1], wide);
  const Tensor factor = reshape(mul(cast(in[3], wide), cast(in[4], wide)), {1, 1});
  const Scores s(a.cap, x, w, in[2], wide);
  const auto column = [&](int k) { return reshape(cast(in[k], wide), {x.dim(0), 1}); };
  const Tensor p = exp(sub(s.logits, column(5))), own = shift(exp(scale(column(6), -1)), -1);
  const Tensor others = mul(p, shift(scale(s.chosen, -1), 1));
  return {batch_matmul(transpose_last(s.gradient(add(others, mul(s.chosen, own)), factor)), x)};
}

std::vector<Case> LinearXentWeightGrad::cases() {
  // lse and nll are inputs here, so that rows need not sum to 1.
  auto make = [](std::int64_t t, std::int64_t d, std::int64_t v, double lse, float cap, std::string name) {
    const CaseInput factor{Shape{1}, CaseInput::constant, 0.25, 0, nullptr, CaseInput::f32};
    const CaseInput dloss{Shape{1}, CaseInput::constant, -1.5, 0, nullptr, CaseInput::f32};
    const CaseInput labels{Shape{t}, CaseInput::index, -2, static_cast<double>(v), nullptr, CaseInput::i32};
    const CaseInput sums{Shape{t}, CaseInput::line, lse, 0.01, nullptr, CaseInput::f32}, nll{Shape{t}, CaseInput::line, 0, 0.125, nullptr, CaseInput::f32};
    Case c{{normal({t, d}), normal({v, d}), labels, factor, dloss, sums, nll}, Attrs::of(LinearXentWeightGrad{cap}), std::move(name)};
    c.differences = false;
    return c;
  };
  return {make(5, 8, 11, 3, 0, ""), make(37, 64, 515, 20, 0, "big"), make(300, 40, 2500, 16, 0, "chunks"), make(9, 32, 131, 4, 1.5f, "capped")};
}

void LinearXentWeightGradAccumulate::infer(Infer& i) {
  i.inputs(8);
  i.check(i.shape(0) == i.shape(2), "target must have the shape of W");
}

Tensors LinearXentWeightGradAccumulate::define(const LinearXentWeightGradAccumulate& a, Args in) {
  accumulate(in[0], record(a.grad, {in[1], in[2], in[3], in[4], in[5], in[6], in[7]}, Where::current())[0]);
  return {};
}

bool fold_linear_xent_weight_grad(const FoldArgs& f, FoldNode& out) {
  const FoldNode* g = f.producers[1];
  if (!g || g->op != &op<LinearXentWeightGrad>()) return false;
  out = *g;
  out.op = &op<LinearXentWeightGradAccumulate>();
  out.attrs = Attrs::of(LinearXentWeightGradAccumulate{g->attrs.as<LinearXentWeightGrad>()});
  out.in.insert(out.in.begin(), f.node.in[0]);
  return true;
}

}  // namespace supersonic
