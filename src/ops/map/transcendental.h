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
Tensor tanh(const Tensor& x, Where where = Where::current());
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

struct Tanh {
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Tanh&, V x) { return tanh(x); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Tanh&, const BackwardArgs& b) {
    return {mul(b.dy[0], shift(scale(mul(b.out[0], b.out[0]), -1), 1))};
  }
  static std::vector<Case> cases() { return map_cases(1); }
};
OP(Tanh);

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

// GELU by tanh (Hendrycks & Gimpel 2016): x/2 (1 + tanh(sqrt(2/π) (x + 0.044715 x³))), written with the sigmoid of twice the
// argument, which is the same.
struct Gelu {
  static constexpr double kSlope = 1.5957691216057308, kCube = 0.044715;  // 2 sqrt(2/π)
  static constexpr int arity = 1;
  template <class V>
  static constexpr V map(const Gelu&, V x) { return x * sigmoid(V(kSlope) * x * (V(1.0) + V(kCube) * x * x)); }
  static void infer(Infer& i) { infer_map(i, 1); }
  static Grads backward(const Gelu&, const BackwardArgs& b);
  static std::vector<Case> cases() { return map_cases(1); }
  static constexpr Traits traits{.cheap = true};
};
OP(Gelu);
Tensor gelu(const Tensor& x, Where where = Where::current());

struct GeluGrad {  // (x, dy) -> dy * (s + x s (1 - s) u'), s = sigmoid(u(x))
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const GeluGrad&, V x, V dy) {
    const V square = x * x;
    const V s = sigmoid(V(Gelu::kSlope) * x * (V(1.0) + V(Gelu::kCube) * square));
    const V slope = V(Gelu::kSlope) * (V(1.0) + V(3 * Gelu::kCube) * square);
    return dy * s * (V(1.0) + x * (V(1.0) - s) * slope);
  }
  static void infer(Infer& i) { infer_map(i, 2); }
};
OP(GeluGrad);

// Gemma's gated activation: gelu(gate) * up.
struct Geglu {
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const Geglu&, V gate, V up) { return Gelu::map(Gelu{}, gate) * up; }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const Geglu&, const BackwardArgs& b);
  static std::vector<Case> cases() { return map_cases(2); }
  static constexpr Traits traits{.cheap = true};
};
OP(Geglu);
Tensor geglu(const Tensor& gate, const Tensor& up, Where where = Where::current());

// gpt-oss's gated activation: (u + 1) g sigmoid(alpha g), with g = min(gate, limit) and u = up within ±limit.
struct ClampedSwiglu {
  float alpha, limit;
  static constexpr int arity = 2;
  template <class V>
  static constexpr V map(const ClampedSwiglu& a, V gate, V up) {
    const V g = vmin(gate, V(double{a.limit})), u = vmax(vmin(up, V(double{a.limit})), V(-double{a.limit}));
    return (u + V(1.0)) * g * sigmoid(V(double{a.alpha}) * g);
  }
  static void infer(Infer& i) { infer_map(i, 2); }
  static Grads backward(const ClampedSwiglu& a, const BackwardArgs& b);
  static std::vector<Case> cases() {
    auto c = map_cases(2);
    for (auto& x : c) x.attrs = Attrs::of(ClampedSwiglu{1.702f, 1.25f});
    return c;
  }
  static constexpr Traits traits{.cheap = true};
};
OP(ClampedSwiglu);
Tensor clamped_swiglu(const Tensor& gate, const Tensor& up, float alpha, float limit, Where where = Where::current());

struct ClampedSwigluGateGrad {  // (gate, up, dy) -> dgate: 0 above the limit
  float alpha, limit;
  static constexpr int arity = 3;
  template <class V>
  static constexpr V map(const ClampedSwigluGateGrad& a, V gate, V up, V dy) {
    const V g = vmin(gate, V(double{a.limit})), u = vmax(vmin(up, V(double{a.limit})), V(-double{a.limit}));
    const V s = sigmoid(V(double{a.alpha}) * g);
    const V slope = (u + V(1.0)) * s * (V(1.0) + V(double{a.alpha}) * g * (V(1.0) - s));
    return select(less(V(double{a.limit}), gate), V(0.0), dy * slope);
  }
  static void infer(Infer& i) { infer_map(i, 3); }
};
OP(ClampedSwigluGateGrad);

struct ClampedSwigluUpGrad {  // (gate, up, dy) -> dup: 0 beyond the limits
  float alpha, limit;
  static constexpr int arity = 3;
  template <class V>
  static constexpr V map(const ClampedSwigluUpGrad& a, V gate, V up, V dy) {
    const V g = vmin(gate, V(double{a.limit}));
    const V within = (V(1.0) - less(V(double{a.limit}), up)) * (V(1.0) - less(up, V(-double{a.limit})));
    return dy * within * g * sigmoid(V(double{a.alpha}) * g);
  }
  static void infer(Infer& i) { infer_map(i, 3); }
};
OP(ClampedSwigluUpGrad);

}  // namespace supersonic
