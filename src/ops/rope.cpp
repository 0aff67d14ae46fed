#include "ops/rope.h"

#include "ops/map/arithmetic.h"
#include "ops/map/transcendental.h"
#include "ops/pad.h"

namespace supersonic {

Tensor rope(const Tensor& x, const Tensor& positions, const Tensor& inv_freq, bool interleaved, float magnitude, Where where) {
  return record(Rope{interleaved, 0, magnitude}, {x, positions, inv_freq}, where)[0];
}

void Rope::infer(Infer& i) {
  i.inputs(3);
  const Shape& x = i.shape(0);
  i.check(x.rank == 3 && x[2] % 2 == 0, "x must be (T, H, D) with an even D");
  i.check(i.shape(1) == Shape{x[0]} && i.shape(2).rank == 1 && i.shape(2)[0] > 0 && 2 * i.shape(2)[0] <= x[2],
          "positions must be (T) and inv_freq (R/2) with R at most D");
  i.output(x, i.spec(0).dtype);
}

Tensors Rope::define(const Rope& a, Args in) {
  if (const std::int64_t turned = 2 * in[2].dim(0), d = in[0].dim(2); turned < d) {
    const Tensor first = record(a, {slice(in[0], 2, 0, turned), in[1], in[2]}, Where::current())[0];
    return {concat(first, slice(in[0], 2, turned, d), 2)};
  }
  const Tensor& x = in[0];
  const DType wide = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const std::int64_t t = x.dim(0), h = x.dim(1), half = x.dim(2) / 2;
  const Tensor angle = mul(cast(reshape(in[1], {t, 1, 1}), wide), cast(reshape(in[2], {1, 1, half}), wide));
  const Tensor c = scale(cos(angle), a.magnitude);
  const Tensor s = scale(sin(angle), a.inverse ? -a.magnitude : a.magnitude);
  const Tensor wide_x = cast(x, wide);
  if (a.interleaved) {
    const Tensor pairs = reshape(wide_x, {t, h, half, 2});
    const Tensor even = reshape(slice(pairs, 3, 0, 1), {t, h, half}), odd = reshape(slice(pairs, 3, 1, 2), {t, h, half});
    const Tensor first = sub(mul(even, c), mul(odd, s)), second = add(mul(odd, c), mul(even, s));
    const Tensor y = concat(reshape(first, {t, h, half, 1}), reshape(second, {t, h, half, 1}), 3);
    return {cast(reshape(y, x.shape()), x.dtype())};
  }
  const Tensor low = slice(wide_x, 2, 0, half), high = slice(wide_x, 2, half, 2 * half);
  const Tensor y = concat(sub(mul(low, c), mul(high, s)), add(mul(high, c), mul(low, s)), 2);
  return {cast(y, x.dtype())};
}

Grads Rope::backward(const Rope& a, const BackwardArgs& b) {
  return {record(Rope{a.interleaved, !a.inverse, a.magnitude}, {b.dy[0], b.in[1], b.in[2]}, Where::current())[0]};
}

std::vector<Case> Rope::cases() {
  std::vector<Case> cases;
  for (int interleaved : {0, 1})
    for (int inverse : {0, 1})
      cases.push_back({{normal({5, 3, 8}), index_input({5}, 40), {Shape{4}, CaseInput::positive, 0, 0, nullptr, CaseInput::f32}},
                       Attrs::of(Rope{interleaved, inverse, 1.25f})});
  Case wide{{normal({17, 9, 64}), index_input({17}, 2000), {Shape{32}, CaseInput::positive, 0, 0, nullptr, CaseInput::f32}},
            Attrs::of(Rope{1, 0, 1.0f})};
  Case partial{{normal({9, 3, 32}), index_input({9}, 40), {Shape{12}, CaseInput::positive, 0, 0, nullptr, CaseInput::f32}},
               Attrs::of(Rope{0, 0, 1.25f}), "partial"};
  cases.push_back(partial);
  partial.attrs = Attrs::of(Rope{1, 0, 1.25f});
  cases.push_back(partial);
  wide.differences = false;
  wide.tolerance = 40;  // an angle of 2,000 rad carries 1e-4 of fp32 rounding
  cases.push_back(wide);
  return cases;
}

}  // namespace supersonic
