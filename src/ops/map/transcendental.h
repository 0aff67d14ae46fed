// Elementwise functions of one variable.
#pragma once
#include "ops/map/arithmetic.h"

namespace supersonic {

Tensor exp(const Tensor& x, Where where = Where::current());
Tensor log(const Tensor& x, Where where = Where::current());
Tensor sqrt(const Tensor& x, Where where = Where::current());
Tensor rsqrt(const Tensor& x, Where where = Where::current());
Tensor sin(const Tensor& x, Where where = Where::current());
Tensor cos(const Tensor& x, Where where = Where::current());
Tensor sigmoid(const Tensor& x, Where where = Where::current());
Tensor silu(const Tensor& x, Where where = Where::current());

struct Exp {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Exp&, V x) { return exp(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Exp&, const BackwardArgs& b) { return {mul(b.dy[0], b.out[0])}; }
  static std::vector<Case> cases() { return map_cases(1); }
};
OP(Exp);

struct Log {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Log&, V x) { return log(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Log&, const BackwardArgs& b) { return {div(b.dy[0], b.in[0])}; }
  static std::vector<Case> cases() { return map_cases(1, true); }
};
OP(Log);

struct Sqrt {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Sqrt&, V x) { return sqrt(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Sqrt&, const BackwardArgs& b) { return {scale(div(b.dy[0], b.out[0]), 0.5)}; }
  static std::vector<Case> cases() { return map_cases(1, true); }
};
OP(Sqrt);

struct Rsqrt {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Rsqrt&, V x) { return rsqrt(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Rsqrt&, const BackwardArgs& b) {
    return {scale(mul(b.dy[0], mul(b.out[0], mul(b.out[0], b.out[0]))), -0.5)};
  }
  static std::vector<Case> cases() { return map_cases(1, true); }
};
OP(Rsqrt);

struct Sin {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Sin&, V x) { return sin(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Sin&, const BackwardArgs& b) { return {mul(b.dy[0], cos(b.in[0]))}; }
  static std::vector<Case> cases() { return map_cases(1); }
};
OP(Sin);

struct Cos {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Cos&, V x) { return cos(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Cos&, const BackwardArgs& b) { return {scale(mul(b.dy[0], sin(b.in[0])), -1)}; }
  static std::vector<Case> cases() { return map_cases(1); }
};
OP(Cos);

struct Sigmoid {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Sigmoid&, V x) { return sigmoid(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Sigmoid&, const BackwardArgs& b) {
    return {mul(b.dy[0], mul(b.out[0], shift(scale(b.out[0], -1), 1)))};
  }
  static std::vector<Case> cases() { return map_cases(1); }
  static constexpr Traits traits{.cheap = true};
};
OP(Sigmoid);

struct Silu {  // x * sigmoid(x)
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Silu&, V x) { return x * sigmoid(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Silu&, const BackwardArgs& b);
  static std::vector<Case> cases() { return map_cases(1); }
  static constexpr Traits traits{.cheap = true};
};
OP(Silu);

struct SiluGrad {  // (x, dy) -> dy * s * (1 + x * (1 - s)), s = sigmoid(x)
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const SiluGrad&, V x, V dy) {
    const V s = sigmoid(x);
    return dy * s * (V(1.0) + x * (V(1.0) - s));
  }
  static void infer(Infer& i) { infer_map(i, 2); }
};
OP(SiluGrad);

// The gated activation of Llama's MLP: silu(gate) * up. One operation, so that it is recomputed as one.
struct Swiglu {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Swiglu&, V gate, V up) { return gate * sigmoid(gate) * up; }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Swiglu&, const BackwardArgs& b);
  static std::vector<Case> cases() { return map_cases(2); }
  static constexpr Traits traits{.cheap = true};
};
OP(Swiglu);
Tensor swiglu(const Tensor& gate, const Tensor& up, Where where = Where::current());

}  // namespace supersonic
