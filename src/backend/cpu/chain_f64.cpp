// The chain interpreter in double: the arithmetic of finite differences and of definitions in tests.
#include <array>
#include <type_traits>

#include "backend/cpu/chain.h"
#include "map_ops.h"

namespace supersonic::cpu {
namespace chain_f64 {

struct Scalar {
  double v;
  static constexpr int lanes = 1;
  explicit Scalar(double x) : v(x) {}
  static Scalar repeat(double x) { return Scalar(x); }
  static Scalar load(const double* p) { return Scalar(*p); }
  void store(double* p) const { *p = v; }
  template <class From>
  static double widen(From x) {
    if constexpr (std::is_same_v<From, bf16> || std::is_same_v<From, f16>) return static_cast<float>(x);
    else return static_cast<double>(x);
  }
  template <class To>
  static To narrow(double x) {
    if constexpr (std::is_same_v<To, bf16> || std::is_same_v<To, f16>) return To(static_cast<float>(x));
    else return static_cast<To>(x);
  }
  template <class From>
  static void convert_in(const From* from, double* to, int n) {
    for (int i = 0; i < n; ++i) to[i] = widen(from[i]);
  }
  template <class To>
  static void convert_out(const double* from, To* to, int n) {
    for (int i = 0; i < n; ++i) to[i] = narrow<To>(from[i]);
  }
};

inline Scalar operator+(Scalar a, Scalar b) { return Scalar(a.v + b.v); }
inline Scalar operator-(Scalar a, Scalar b) { return Scalar(a.v - b.v); }
inline Scalar operator*(Scalar a, Scalar b) { return Scalar(a.v * b.v); }
inline Scalar operator/(Scalar a, Scalar b) { return Scalar(a.v / b.v); }
inline Scalar less(Scalar a, Scalar b) { return Scalar(supersonic::less(a.v, b.v)); }
inline Scalar equal(Scalar a, Scalar b) { return Scalar(supersonic::equal(a.v, b.v)); }
inline Scalar select(Scalar c, Scalar a, Scalar b) { return Scalar(supersonic::select(c.v, a.v, b.v)); }
inline Scalar vmax(Scalar a, Scalar b) { return Scalar(supersonic::vmax(a.v, b.v)); }
inline Scalar vmin(Scalar a, Scalar b) { return Scalar(supersonic::vmin(a.v, b.v)); }
inline Scalar exp(Scalar x) { return Scalar(std::exp(x.v)); }
inline Scalar log(Scalar x) { return Scalar(std::log(x.v)); }
inline Scalar sqrt(Scalar x) { return Scalar(std::sqrt(x.v)); }
inline Scalar rsqrt(Scalar x) { return Scalar(supersonic::rsqrt(x.v)); }
inline Scalar sin(Scalar x) { return Scalar(std::sin(x.v)); }
inline Scalar cos(Scalar x) { return Scalar(std::cos(x.v)); }
inline Scalar tanh(Scalar x) { return Scalar(std::tanh(x.v)); }
inline Scalar sigmoid(Scalar x) { return Scalar(supersonic::sigmoid(x.v)); }

#include "backend/cpu/chain_loops.h"

}  // namespace chain_f64

void run_chain_f64(Pool& pool, const ChainTask& task) { chain_f64::ChainRunner<double, chain_f64::Scalar>(task).run(pool); }

}  // namespace supersonic::cpu
