// Any scalar type as double, one element at a time: for kernels that exist for their generality, not their speed.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace supersonic::cpu {

inline double load_as_double(const void* p, DType t, std::int64_t i) {
  switch (t) {
    case DType::f32: return static_cast<const float*>(p)[i];
    case DType::f16: return static_cast<float>(static_cast<const f16*>(p)[i]);
    case DType::bf16: return static_cast<float>(static_cast<const bf16*>(p)[i]);
    case DType::f64: return static_cast<const double*>(p)[i];
    case DType::i32: return static_cast<const std::int32_t*>(p)[i];
    case DType::i64: return static_cast<double>(static_cast<const std::int64_t*>(p)[i]);
    case DType::i8: return static_cast<const std::int8_t*>(p)[i];
    default: return static_cast<const std::uint8_t*>(p)[i];
  }
}

inline void store_from_double(void* p, DType t, std::int64_t i, double x) {
  switch (t) {
    case DType::f32: static_cast<float*>(p)[i] = static_cast<float>(x); return;
    case DType::f16: static_cast<f16*>(p)[i] = f16(static_cast<float>(x)); return;
    case DType::bf16: static_cast<bf16*>(p)[i] = bf16(static_cast<float>(x)); return;
    case DType::f64: static_cast<double*>(p)[i] = x; return;
    case DType::i32: static_cast<std::int32_t*>(p)[i] = static_cast<std::int32_t>(x); return;
    case DType::i64: static_cast<std::int64_t*>(p)[i] = static_cast<std::int64_t>(x); return;
    case DType::i8: static_cast<std::int8_t*>(p)[i] = static_cast<std::int8_t>(x); return;
    default: static_cast<std::uint8_t*>(p)[i] = static_cast<std::uint8_t>(x); return;
  }
}

}  // namespace supersonic::cpu
