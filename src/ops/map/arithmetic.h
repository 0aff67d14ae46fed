// Elementwise arithmetic. Operands of the recording functions broadcast as in NumPy; the nodes themselves have equal shapes.
// A node's dtype is that of its first operand, unless cast() says otherwise; fp32 inside a chain whatever the dtype.
#pragma once
#include "ops/helpers.h"
#include "ops/map/functions.h"

namespace supersonic {

Tensor add(const Tensor& a, const Tensor& b, Where where);
Tensor sub(const Tensor& a, const Tensor& b, Where where = Where::current());
Tensor mul(const Tensor& a, const Tensor& b, Where where = Where::current());
Tensor div(const Tensor& a, const Tensor& b, Where where = Where::current());
Tensor maximum(const Tensor& a, const Tensor& b, Where where = Where::current());
Tensor less(const Tensor& a, const Tensor& b, Where where = Where::current());    // 1 or 0
Tensor equal(const Tensor& a, const Tensor& b, Where where = Where::current());   // 1 or 0
Tensor select(const Tensor& condition, const Tensor& yes, const Tensor& no, Where where = Where::current());
Tensor scale(const Tensor& x, double factor, Where where = Where::current());
Tensor shift(const Tensor& x, double offset, Where where = Where::current());
Tensor cast(const Tensor& x, DType dtype, Where where = Where::current());

// Infers a map's output: all shapes equal; dtype of input `like`.
inline void infer_map(Infer& i, int arity, int like = 0) {
  i.inputs(arity);
  for (int k = 1; k < arity; ++k)
    i.check(i.shape(k) == i.shape(0), "operands must have one shape, got {} and {}", to_string(i.shape(0)), to_string(i.shape(k)));
  i.output(i.shape(0), i.spec(like).dtype);
}
inline std::vector<Case> map_cases(int arity, bool only_positive = false) {
  std::vector<Case> cases;
  for (Shape s : {Shape{7}, Shape{3, 96}, Shape{2, 5, 33}}) {
    Case c;
    for (int k = 0; k < arity; ++k) c.inputs.push_back(only_positive ? positive(s) : normal(s));
    cases.push_back(c);
  }
  return cases;
}

struct Add {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Add&, V a, V b) { return a + b; }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Add&, const BackwardArgs& b) { return {b.dy[0], cast(b.dy[0], b.in[1].dtype())}; }
  static bool fold(const FoldArgs& f, FoldNode& out);  // matmul + matmul: ops/gemm.h; the gradient of a norm: ops/rms_norm.h
  static std::vector<Case> cases() { return map_cases(2); }
};
OP(Add);

struct Sub {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Sub&, V a, V b) { return a - b; }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Sub&, const BackwardArgs& b) { return {b.dy[0], cast(scale(b.dy[0], -1), b.in[1].dtype())}; }
  static std::vector<Case> cases() { return map_cases(2); }
};
OP(Sub);

struct Mul {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Mul&, V a, V b) { return a * b; }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Mul&, const BackwardArgs& b) {
    return {b.need[0] ? mul(b.dy[0], b.in[1]) : Tensor(),
            b.need[1] ? cast(mul(b.dy[0], b.in[0]), b.in[1].dtype()) : Tensor()};
  }
  static std::vector<Case> cases() { return map_cases(2); }
};
OP(Mul);

struct Div {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Div&, V a, V b) { return a / b; }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Div&, const BackwardArgs& b) {
    const Tensor da = div(b.dy[0], b.in[1]);
    return {da, b.need[1] ? cast(scale(mul(da, b.out[0]), -1), b.in[1].dtype()) : Tensor()};
  }
  static std::vector<Case> cases() { return map_cases(2, true); }
};
OP(Div);

struct Maximum {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Maximum&, V a, V b) { return vmax(a, b); }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Maximum&, const BackwardArgs& b) {
    const Tensor take_b = less(b.in[0], b.in[1]);
    return {mul(b.dy[0], shift(scale(take_b, -1), 1)), cast(mul(b.dy[0], take_b), b.in[1].dtype())};
  }
  static std::vector<Case> cases() { return map_cases(2); }
};
OP(Maximum);

struct Less {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Less&, V a, V b) { return less(a, b); }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Less&, const BackwardArgs&) { return {}; }
};
OP(Less);

struct Equal {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Equal&, V a, V b) { return equal(a, b); }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Equal&, const BackwardArgs&) { return {}; }
};
OP(Equal);

struct Select {
  static constexpr int arity = 3;
  template <class V>
  static constexpr V map(const Select&, V c, V yes, V no) { return select(c, yes, no); }
  static void infer(Infer& i) { infer_map(i, 3, 1); }
  static Grads backward(const Select&, const BackwardArgs& b) {
    const Tensor zero = scale(b.dy[0], 0);
    return {Tensor(), b.need[1] ? select(b.in[0], b.dy[0], zero) : Tensor(),
            b.need[2] ? cast(select(b.in[0], zero, b.dy[0]), b.in[2].dtype()) : Tensor()};
  }
};
OP(Select);

struct Scale {
  double factor;
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Scale& s, V x) { return x * V(s.factor); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Scale& s, const BackwardArgs& b) { return {scale(b.dy[0], s.factor)}; }
  static bool fold(const FoldArgs& f, FoldNode& out);  // scaled matmul: ops/gemm.h
  static std::vector<Case> cases() {
    auto c = map_cases(1);
    for (auto& x : c) x.attrs = Attrs::of(Scale{-1.75});
    return c;
  }
};
OP(Scale);

struct Shift {
  double offset;
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Shift& s, V x) { return x + V(s.offset); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Shift&, const BackwardArgs& b) { return {b.dy[0]}; }
};
OP(Shift);

struct Cast {
  std::int64_t dtype;
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Cast&, V x) { return x; }
  static void infer(Infer& i) {
    i.inputs(1);
    i.output(i.shape(0), static_cast<DType>(i.attrs.as<Cast>().dtype));
  }
  static Grads backward(const Cast&, const BackwardArgs& b) { return {cast(b.dy[0], b.in[0].dtype())}; }
  static constexpr Traits traits{.cheap = true};
};
OP(Cast);

}  // namespace supersonic
