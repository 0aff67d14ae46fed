#include "ops/map/arithmetic.h"
#include "ops/map/transcendental.h"

namespace supersonic {
namespace {

Shape broadcast_shape(const Shape& a, const Shape& b) {
  Shape s;
  s.rank = std::max(a.rank, b.rank);
  for (int i = 0; i < s.rank; ++i) {
    const std::int64_t x = i < a.rank ? a[a.rank - 1 - i] : 1, y = i < b.rank ? b[b.rank - 1 - i] : 1;
    CHECK(x == y || x == 1 || y == 1, "shapes {} and {} do not broadcast", to_string(a), to_string(b));
    s[s.rank - 1 - i] = x == 1 ? y : x;
  }
  return s;
}

template <class A>
Tensor binary(const A& op, const Tensor& a, const Tensor& b, Where where) {
  const Shape s = broadcast_shape(a.shape(), b.shape());
  return record1(op, {expand(a, s, where), expand(b, s, where)}, where);
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b, Where where) { return binary(Add{}, a, b, where); }
Tensor sub(const Tensor& a, const Tensor& b, Where where) { return binary(Sub{}, a, b, where); }
Tensor mul(const Tensor& a, const Tensor& b, Where where) { return binary(Mul{}, a, b, where); }
Tensor div(const Tensor& a, const Tensor& b, Where where) { return binary(Div{}, a, b, where); }
Tensor maximum(const Tensor& a, const Tensor& b, Where where) { return binary(Maximum{}, a, b, where); }
Tensor less(const Tensor& a, const Tensor& b, Where where) { return binary(Less{}, a, b, where); }
Tensor equal(const Tensor& a, const Tensor& b, Where where) { return binary(Equal{}, a, b, where); }
Tensor select(const Tensor& c, const Tensor& yes, const Tensor& no, Where where) {
  const Shape s = broadcast_shape(broadcast_shape(c.shape(), yes.shape()), no.shape());
  return record1(Select{}, {expand(c, s, where), expand(yes, s, where), expand(no, s, where)}, where);
}
Tensor scale(const Tensor& x, double factor, Where where) { return record1(Scale{factor}, {x}, where); }
Tensor shift(const Tensor& x, double offset, Where where) { return record1(Shift{offset}, {x}, where); }
Tensor cast(const Tensor& x, DType dtype, Where where) {
  return x.dtype() == dtype ? x : record1(Cast{static_cast<std::int64_t>(dtype)}, {x}, where);
}

Tensor exp(const Tensor& x, Where where) { return record1(Exp{}, {x}, where); }
Tensor log(const Tensor& x, Where where) { return record1(Log{}, {x}, where); }
Tensor sqrt(const Tensor& x, Where where) { return record1(Sqrt{}, {x}, where); }
Tensor rsqrt(const Tensor& x, Where where) { return record1(Rsqrt{}, {x}, where); }
Tensor sin(const Tensor& x, Where where) { return record1(Sin{}, {x}, where); }
Tensor cos(const Tensor& x, Where where) { return record1(Cos{}, {x}, where); }
Tensor tanh(const Tensor& x, Where where) { return record1(Tanh{}, {x}, where); }
Tensor sigmoid(const Tensor& x, Where where) { return record1(Sigmoid{}, {x}, where); }
Tensor silu(const Tensor& x, Where where) { return record1(Silu{}, {x}, where); }
Tensor swiglu(const Tensor& gate, const Tensor& up, Where where) { return record1(Swiglu{}, {gate, up}, where); }

Tensor gelu(const Tensor& x, Where where) { return record1(Gelu{}, {x}, where); }
Tensor geglu(const Tensor& gate, const Tensor& up, Where where) { return record1(Geglu{}, {gate, up}, where); }
Tensor clamped_swiglu(const Tensor& gate, const Tensor& up, float alpha, float limit, Where where) {
  return record1(ClampedSwiglu{alpha, limit}, {gate, up}, where);
}

Grads Gelu::backward(const Gelu&, const BackwardArgs& b) {
  return {record1(GeluGrad{}, {b.in[0], b.dy[0]}, Where::current())};
}

Grads Geglu::backward(const Geglu&, const BackwardArgs& b) {
  const Tensor &gate = b.in[0], &up = b.in[1];
  return {b.need[0] ? record1(GeluGrad{}, {gate, mul(b.dy[0], up)}, Where::current()) : Tensor(),
          b.need[1] ? mul(b.dy[0], gelu(gate)) : Tensor()};
}

Grads ClampedSwiglu::backward(const ClampedSwiglu& a, const BackwardArgs& b) {
  const Tensor &gate = b.in[0], &up = b.in[1];
  return {b.need[0] ? record1(ClampedSwigluGateGrad{a.alpha, a.limit}, {gate, up, b.dy[0]}, Where::current()) : Tensor(),
          b.need[1] ? record1(ClampedSwigluUpGrad{a.alpha, a.limit}, {gate, up, b.dy[0]}, Where::current()) : Tensor()};
}

Grads Silu::backward(const Silu&, const BackwardArgs& b) {
  return {record1(SiluGrad{}, {b.in[0], b.dy[0]}, Where::current())};
}

Grads Swiglu::backward(const Swiglu&, const BackwardArgs& b) {
  const Tensor &gate = b.in[0], &up = b.in[1];
  return {b.need[0] ? record1(SiluGrad{}, {gate, mul(b.dy[0], up)}, Where::current()) : Tensor(),
          b.need[1] ? mul(b.dy[0], silu(gate)) : Tensor()};
}

}  // namespace supersonic
