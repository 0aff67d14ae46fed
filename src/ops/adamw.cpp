#include "ops/adamw.h"

#include "ops/map/arithmetic.h"
#include "ops/reduce.h"

namespace supersonic {
namespace {

void check_parameters(const Infer& i) {
  const DType t = i.spec(0).dtype;
  i.check(t == DType::f32 || t == DType::bf16, "p must be f32 or bf16, got {}", name_of(t));
}

}  // namespace

void AdamW::infer(Infer& i) {
  i.inputs(6);
  check_parameters(i);
  for (int k = 1; k < 4; ++k) i.check(i.shape(k) == i.shape(0), "p, m, v and g must have one shape");
  i.check(i.shape(4) == Shape{4} && i.shape(5) == Shape{1}, "hyper must be (4) and the squared norm (1)");
}

void AdamW8bit::infer(Infer& i) {
  i.inputs(8);
  check_parameters(i);
  const Shape blocks{(i.shape(0).numel() + 255) / 256};
  i.check(i.shape(1) == i.shape(0) && i.shape(2) == i.shape(0) && i.shape(5) == i.shape(0), "p, m, v and g must have one shape");
  i.check(i.shape(3) == blocks && i.shape(4) == blocks, "the block maxima must be {}", to_string(blocks));
  i.check(i.spec(1).dtype == DType::u8 && i.spec(2).dtype == DType::u8, "m and v must be u8");
}

void SumSquares::infer(Infer& i) {
  i.inputs(1);
  i.output(Shape{1}, i.spec(0).dtype == DType::f64 ? DType::f64 : DType::f32);
}
Tensors SumSquares::define(const SumSquares&, Args in) {
  const Tensor x = cast(reshape(in[0], {in[0].numel()}), in[0].dtype() == DType::f64 ? DType::f64 : DType::f32);
  return {sum(mul(x, x), 0)};
}
Grads SumSquares::backward(const SumSquares&, const BackwardArgs& b) {
  return {scale(mul(b.in[0], cast(b.dy[0], b.in[0].dtype())), 2)};
}
std::vector<Case> SumSquares::cases() { return {{{normal({7})}, {}}, {{normal({5000})}, {}, "", true, false}}; }

Tensor sum_squares(const Tensor& x, Where where) { return record(SumSquares{}, {x}, where)[0]; }

}  // namespace supersonic
