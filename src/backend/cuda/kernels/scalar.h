// Scalar types in device code: vectors of neighbours that are loaded and stored at once,
// conversions that round once, and the choice of a type at run time, which all threads of a launch
// make alike.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "core/dtype.h"

namespace supersonic::cuda {

template <class T, int W>
struct alignas(sizeof(T) * W) Pack {
  T v[W];
};

template <class T>
struct TypeTag {
  using type = T;
};

// f(TypeTag<T>{}) for the C++ type of a scalar type.
template <class F>
__host__ __device__ inline auto with_type(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f(TypeTag<float>{});
    case DType::f16:
      return f(TypeTag<f16>{});
    case DType::bf16:
      return f(TypeTag<bf16>{});
    case DType::f64:
      return f(TypeTag<double>{});
    case DType::i32:
      return f(TypeTag<std::int32_t>{});
    case DType::i64:
      return f(TypeTag<std::int64_t>{});
    case DType::i8:
      return f(TypeTag<std::int8_t>{});
    default:
      return f(TypeTag<std::uint8_t>{});
  }
}

template <class T>
constexpr bool is_half = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

// A stored value as float or double.
template <class T, class From>
__device__ inline T widen(From x) {
  if constexpr (std::is_same_v<From, f16>)
    return static_cast<T>(__half2float(__ushort_as_half(x.bits)));
  else if constexpr (is_half<From>)
    return static_cast<T>(static_cast<float>(x));
  else
    return static_cast<T>(x);
}
// A float or double as a stored value. 16-bit results of doubles round through float, as on the
// CPU.
template <class To, class T>
__device__ inline To narrow(T x) {
  To y;
  if constexpr (std::is_same_v<To, bf16>)
    y.bits = __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(x)));
  else if constexpr (std::is_same_v<To, f16>)
    y.bits = __half_as_ushort(__float2half_rn(static_cast<float>(x)));
  else
    y = static_cast<To>(x);
  return y;
}

// Element i of an array whose type is known at run time alone.
template <class T>
__device__ inline T load_scalar(const void* p, DType t, std::int64_t i) {
  return with_type(t, [&](auto tag) {
    return widen<T>(static_cast<const typename decltype(tag)::type*>(p)[i]);
  });
}
template <class T>
__device__ inline void store_scalar(void* p, DType t, std::int64_t i, T x) {
  with_type(t, [&](auto tag) {
    using To = typename decltype(tag)::type;
    static_cast<To*>(p)[i] = narrow<To>(x);
  });
}
// Whether arithmetic on these types needs doubles: fp64, and whole numbers wider than a float's 24
// bits.
constexpr bool needs_double(DType t) {
  return t == DType::f64 || t == DType::i32 || t == DType::i64;
}

}  // namespace supersonic::cuda
