// Zeros around one axis: the backward of a slice, and with an addition a concatenation.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

Tensor concat(const Tensor& a, const Tensor& b, int axis, Where where = Where::current());

struct Pad {
  std::int64_t axis, before, after;
  static void infer(Infer& i) {
    i.inputs(1);
    const auto a = i.attrs.as<Pad>();
    Shape s = i.shape(0);
    i.check(a.axis >= 0 && a.axis < s.rank && a.before >= 0 && a.after >= 0, "no such padding");
    s[static_cast<int>(a.axis)] += a.before + a.after;
    i.output(s, i.spec(0).dtype);
  }
  static Grads backward(const Pad& a, const BackwardArgs& b) {
    const int axis = static_cast<int>(a.axis);
    return {slice(b.dy[0], axis, a.before, a.before + b.in[0].dim(axis))};
  }
  static std::vector<Case> cases() {
    return {{{normal({5, 3})}, Attrs::of(Pad{0, 1, 2})}, {{normal({2, 3, 33})}, Attrs::of(Pad{2, 0, 31})},
            {{normal({2, 4, 8})}, Attrs::of(Pad{1, 4, 0})}};
  }
};
OP(Pad);

}  // namespace supersonic
