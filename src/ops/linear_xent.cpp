#include "ops/linear_xent.h"

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
}

Tensors LinearXent::define(const LinearXent& a, Args in) {
  const DType wide = in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const std::int64_t t = in[0].dim(0), v = in[1].dim(0);
  const Tensor x = cast(in[0], wide), w = dequantize(in[1], wide), factor = reshape(cast(in[3], wide), {1, 1});
  Tensor logits = batch_matmul(x, transpose_last(w));  // (T, V)
  const Tensor bent = a.cap > 0 ? tanh(scale(logits, 1 / static_cast<double>(a.cap))) : Tensor();
  if (bent) logits = scale(bent, a.cap);
  const Tensor label = cast(reshape(in[2], {t, 1}), wide);
  const Tensor chosen = equal(reshape(iota(v, wide), {1, v}), label);
  const Tensor kept = less(fill({1, 1}, wide, -0.5), label);  // (T, 1)
  const Tensor top = max(logits, -1), e = exp(sub(logits, top)), total = sum(e, -1);
  const Tensor loss = mul(kept, sub(add(log(total), top), sum(mul(logits, chosen), -1)));
  Tensor dlogits = mul(mul(sub(div(e, total), chosen), kept), factor);
  if (bent) dlogits = mul(dlogits, shift(scale(mul(bent, bent), -1), 1));
  return {reshape(mul(sum(loss, 0), factor), {1}), cast(batch_matmul(dlogits, w), in[0].dtype())};
}

Grads LinearXent::backward(const LinearXent&, const BackwardArgs& b) {
  CHECK(!b.dy[1], "linear_xent: its second output is not differentiable");
  CHECK(b.need.size() < 2 || !b.need[1], "linear_xent: the head is frozen");
  return {mul(b.out[1], cast(reshape(b.dy[0], {1, 1}), b.in[0].dtype()))};
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

}  // namespace supersonic
