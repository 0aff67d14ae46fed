// Elementwise work for one instruction set.
#pragma once
#include "backend/cpu/simd_math.h"
#include "hand_step/elementwise.h"

namespace supersonic::cpu::SIMD_NAMESPACE {
namespace {

constexpr std::int64_t kElementGrain = 4096;  // elements: a part is worth a thread

// f(i, lanes) for each vector of [0, n), shared out among the threads.
template <class F>
void each_vec(Pool& pool, std::int64_t n, const F& f) {
  pool.ranges(n, kElementGrain, [&](std::int64_t begin, std::int64_t end, int) {
    for_each_vec(end - begin, [&](auto i, auto lanes) { f(begin + i, lanes); });
  });
}

template <class T>
void add_as(Pool& pool, const void* a, const void* b, void* y, std::int64_t n) {
  each_vec(pool, n, [=](auto i, auto lanes) {
    store(static_cast<T*>(y) + i,
          load(static_cast<const T*>(a) + i, lanes) + load(static_cast<const T*>(b) + i, lanes),
          lanes);
  });
}

template <class T>
void swiglu_as(Pool& pool, const void* gate, const void* up, void* y, std::int64_t n) {
  each_vec(pool, n, [=](auto i, auto lanes) {
    const Vec g = load(static_cast<const T*>(gate) + i, lanes);
    store(static_cast<T*>(y) + i, g * sigmoid(g) * load(static_cast<const T*>(up) + i, lanes),
          lanes);
  });
}

template <class T>
void swiglu_backward_as(Pool& pool, const void* gate, const void* up, const void* dy, void* y,
                        void* dgate, void* dup, std::int64_t n) {
  each_vec(pool, n, [=](auto i, auto lanes) {
    const Vec g = load(static_cast<const T*>(gate) + i, lanes),
              u = load(static_cast<const T*>(up) + i, lanes),
              d = load(static_cast<const T*>(dy) + i, lanes), s = sigmoid(g);
    store(static_cast<T*>(y) + i, g * s * u, lanes);
    store(static_cast<T*>(dup) + i, d * (g * s), lanes);
    store(static_cast<T*>(dgate) + i, d * u * s * (1.0f + g * (1.0f - s)), lanes);
  });
}

void add(Pool& pool, const void* a, const void* b, void* y, DType type, std::int64_t n) {
  type == DType::bf16 ? add_as<bf16>(pool, a, b, y, n) : add_as<float>(pool, a, b, y, n);
}
void swiglu(Pool& pool, const void* gate, const void* up, void* y, DType type, std::int64_t n) {
  type == DType::bf16 ? swiglu_as<bf16>(pool, gate, up, y, n)
                      : swiglu_as<float>(pool, gate, up, y, n);
}
void swiglu_backward(Pool& pool, const void* gate, const void* up, const void* dy, void* y,
                     void* dgate, void* dup, DType type, std::int64_t n) {
  type == DType::bf16 ? swiglu_backward_as<bf16>(pool, gate, up, dy, y, dgate, dup, n)
                      : swiglu_backward_as<float>(pool, gate, up, dy, y, dgate, dup, n);
}

}  // namespace

const ElementwiseKernels& elementwise_kernels() {
  static constexpr ElementwiseKernels table{add, swiglu, swiglu_backward};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
