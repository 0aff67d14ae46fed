// What maps compute with on a device: a number with the vocabulary of ops/map/functions.h, and the
// number of each map. For the kernels that run chains.
#pragma once
#include "backend/cuda/kernels/scalar.h"
#include "map_ops.h"

namespace supersonic::cuda {

// Functions are found by argument-dependent lookup.
template <class T>
struct Num {
  T v;
  Num() = default;
  __device__ constexpr explicit Num(double x) : v(static_cast<T>(x)) {}
  __device__ static Num of(T x) {
    Num n;
    n.v = x;
    return n;
  }
};
#define NUM_BINARY(name, expression)                  \
  template <class T>                                  \
  __device__ inline Num<T> name(Num<T> x, Num<T> y) { \
    const T a = x.v, b = y.v;                         \
    return Num<T>::of(expression);                    \
  }
#define NUM_UNARY(name, expression)         \
  template <class T>                        \
  __device__ inline Num<T> name(Num<T> x) { \
    const T a = x.v;                        \
    return Num<T>::of(expression);          \
  }
NUM_BINARY(operator+, a + b)
NUM_BINARY(operator-, a - b)
NUM_BINARY(operator*, a* b)
NUM_BINARY(operator/, a / b)
NUM_BINARY(less, a < b ? T(1) : T(0))
NUM_BINARY(equal, a == b ? T(1) : T(0))
NUM_BINARY(vmax, a > b ? a : b)
NUM_BINARY(vmin, a < b ? a : b)
NUM_UNARY(exp, ::exp(a))
NUM_UNARY(log, ::log(a))
NUM_UNARY(sqrt, ::sqrt(a))
NUM_UNARY(rsqrt, T(1) / ::sqrt(a))
NUM_UNARY(sin, ::sin(a))
NUM_UNARY(cos, ::cos(a))
NUM_UNARY(tanh, ::tanh(a))
// In fp32 the reciprocal is off by at most one unit; 1 + exp(-a) is at least 1, so what it flushes
// to zero is below 1e-38.
__device__ inline float sigmoid_of(float a) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + ::expf(-a)));
  return r;
}
__device__ inline double sigmoid_of(double a) { return 1.0 / (1.0 + ::exp(-a)); }
NUM_UNARY(sigmoid, sigmoid_of(a))
#undef NUM_BINARY
#undef NUM_UNARY
template <class T>
__device__ inline Num<T> select(Num<T> condition, Num<T> yes, Num<T> no) {
  return condition.v != 0 ? yes : no;
}

enum class MapOp : std::uint8_t {
#define SUPERSONIC_MAP_NAME(M) M,
  SUPERSONIC_MAP_OPS(SUPERSONIC_MAP_NAME)
#undef SUPERSONIC_MAP_NAME
};

}  // namespace supersonic::cuda
