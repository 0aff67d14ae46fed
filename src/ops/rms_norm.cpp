#include "ops/rms_norm.h"

#include "core/autograd.h"
#include "ops/map/arithmetic.h"
#include "ops/map/transcendental.h"
#include "ops/reduce.h"

namespace supersonic {

Tensor rms_norm(const Tensor& x, const Tensor& w, float eps, Where where) { return record(RmsNorm{eps}, {x, w}, where)[0]; }

void RmsNorm::infer(Infer& i) {
  i.inputs(2);
  i.check(i.shape(0).rank == 2 && i.shape(1) == Shape{i.shape(0)[1]}, "x must be (rows, D) and w (D)");
  i.output(i.shape(0), i.spec(0).dtype);
  i.output(Shape{i.shape(0)[0]}, i.spec(0).dtype == DType::f64 ? DType::f64 : DType::f32);
}

Tensors RmsNorm::define(const RmsNorm& a, Args in) {
  const DType wide = in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor x = cast(in[0], wide), w = cast(in[1], wide);
  const Tensor rstd = rsqrt(shift(mean(mul(x, x), -1), a.eps));
  return {cast(mul(mul(x, rstd), w), in[0].dtype()), reshape(rstd, {in[0].dim(0)})};
}

Grads RmsNorm::backward(const RmsNorm& a, const BackwardArgs& b) {
  if (b.dy[1]) return differentiate(op<RmsNorm>(), Attrs::of(a), b.in, b.dy, b.need);  // nobody asks for d rstd in a model
  const Tensors g = record(RmsNormGrad{a.eps}, {b.in[0], b.in[1], b.out[1], b.dy[0]}, Where::current());
  return {g[0], g[1]};
}

std::vector<Case> RmsNorm::cases() {
  const Attrs a = Attrs::of(RmsNorm{1e-5f});
  Case big{{normal({33, 576}), positive({576})}, a};
  big.differences = false;
  return {{{normal({7, 96}), positive({96})}, a}, {{normal({1, 5}), positive({5})}, a}, big};
}

void RmsNormGrad::infer(Infer& i) {
  i.inputs(4);
  i.check(i.shape(0) == i.shape(3), "dy must have the shape of x");
  i.output(i.shape(0), i.spec(0).dtype);
  i.output(i.shape(1), i.spec(1).dtype);
}

Tensors RmsNormGrad::define(const RmsNormGrad& a, Args in) {
  const Tensor ins[] = {in[0], in[1]}, dys[] = {in[3], Tensor()};
  return differentiate(op<RmsNorm>(), Attrs::of(RmsNorm{a.eps}), ins, dys, {true, true});
}

void RmsNormGradAdd::infer(Infer& i) {
  i.inputs(5);
  i.check(i.shape(0) == i.shape(3) && i.spec(0) == i.spec(4), "dy must have the shape of x, and base its type too");
  i.output(i.shape(0), i.spec(0).dtype);
}

Tensors RmsNormGradAdd::define(const RmsNormGradAdd& a, Args in) {
  return {add(in[4], record(RmsNormGrad{a.eps}, {in[0], in[1], in[2], in[3]}, Where::current())[0])};
}

bool fold_rms_norm_grad(const FoldArgs& f, FoldNode& out) {
  for (int k : {0, 1}) {
    const FoldNode* grad = f.producers[k];
    // x and the gradient along it have two dimensions, dw has one.
    if (!grad || grad->op != &op<RmsNormGrad>() || !(f.node.out == grad->in_specs[0]) || !(f.node.in_specs[1 - k] == f.node.out)) continue;
    out = *grad;
    out.op = &op<RmsNormGradAdd>();
    out.attrs = Attrs::of(RmsNormGradAdd{grad->attrs.as<RmsNormGrad>().eps});
    out.in.push_back(f.node.in[1 - k]);
    return true;
  }
  return false;
}

}  // namespace supersonic
