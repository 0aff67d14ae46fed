// The vector of floats that chains compute with: simd.h's Vec as a class, so that a map's body finds the functions by
// argument-dependent lookup. Tiles are padded to whole vectors, so a loop may run past n within its tile.
#pragma once
#include <array>
#include <type_traits>

#include "backend/cpu/chain.h"
#include "backend/cpu/simd_math.h"
#include "map_ops.h"

namespace supersonic::cpu::SIMD_NAMESPACE {
namespace chain {

struct Lanes {
  Vec v;
  static constexpr int lanes = kLanes;
  Lanes() = default;
  explicit Lanes(Vec x) : v(x) {}
  explicit Lanes(double x) : v(set(static_cast<float>(x))) {}
  static Lanes repeat(float x) { return Lanes(set(x)); }
  static Lanes load(const float* p) {
    Vec x;
    std::memcpy(&x, p, sizeof x);
    return Lanes(x);
  }
  void store(float* p) const { std::memcpy(p, &v, sizeof v); }

  template <class From>
  static float widen(From x) { return static_cast<float>(x); }
  template <class To>
  static To narrow(float x) { return static_cast<To>(x); }
  template <class From>
  static void convert_in(const From* from, float* to, int n) {
    if constexpr (std::is_same_v<From, float> || std::is_same_v<From, bf16> || std::is_same_v<From, f16>) {
      for_each_vec(n, [&](auto i, auto lanes) { SIMD_NAMESPACE::store(to + i, SIMD_NAMESPACE::load(from + i, lanes), lanes); });
    } else {
      for (int i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
    }
  }
  template <class To>
  static void convert_out(const float* from, To* to, int n) {
    if constexpr (std::is_same_v<To, float> || std::is_same_v<To, bf16> || std::is_same_v<To, f16>) {
      for_each_vec(n, [&](auto i, auto lanes) { SIMD_NAMESPACE::store(to + i, SIMD_NAMESPACE::load(from + i, lanes), lanes); });
    } else {
      for (int i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
    }
  }
};

inline Lanes operator+(Lanes a, Lanes b) { return Lanes(a.v + b.v); }
inline Lanes operator-(Lanes a, Lanes b) { return Lanes(a.v - b.v); }
inline Lanes operator*(Lanes a, Lanes b) { return Lanes(a.v * b.v); }
inline Lanes operator/(Lanes a, Lanes b) { return Lanes(a.v / b.v); }
inline Lanes truth(VecI mask) { return Lanes(mask ? set(1.0f) : set(0.0f)); }
inline Lanes less(Lanes a, Lanes b) { return truth(a.v < b.v); }
inline Lanes equal(Lanes a, Lanes b) { return truth(a.v == b.v); }
inline Lanes select(Lanes c, Lanes a, Lanes b) { return Lanes(SIMD_NAMESPACE::select(c.v != set(0.0f), a.v, b.v)); }
inline Lanes vmax(Lanes a, Lanes b) { return Lanes(a.v > b.v ? a.v : b.v); }
inline Lanes vmin(Lanes a, Lanes b) { return Lanes(a.v < b.v ? a.v : b.v); }
inline Lanes exp(Lanes x) { return Lanes(SIMD_NAMESPACE::exp(x.v)); }
inline Lanes log(Lanes x) { return Lanes(SIMD_NAMESPACE::log(x.v)); }
inline Lanes sqrt(Lanes x) { return Lanes(SIMD_NAMESPACE::sqrt(x.v)); }
inline Lanes rsqrt(Lanes x) { return Lanes(SIMD_NAMESPACE::rsqrt(x.v)); }
inline Lanes sin(Lanes x) { return Lanes(SIMD_NAMESPACE::sin(x.v)); }
inline Lanes cos(Lanes x) { return Lanes(SIMD_NAMESPACE::cos(x.v)); }
inline Lanes tanh(Lanes x) { return Lanes(SIMD_NAMESPACE::tanh(x.v)); }
inline Lanes sigmoid(Lanes x) { return Lanes(SIMD_NAMESPACE::sigmoid(x.v)); }

#include "backend/cpu/chain_loops.h"

}  // namespace chain

void run_chain(Pool& pool, const ChainTask& task) { chain::ChainRunner<float, chain::Lanes>(task).run(pool); }

}  // namespace supersonic::cpu::SIMD_NAMESPACE
