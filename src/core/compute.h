// The arithmetic of matrix products: what their operands are rounded to. Accumulation is fp32 throughout.
// fp8 is E4M3 with a scale for 128 numbers, of frozen weights and what they are multiplied with; all else is bf16 then.
#pragma once
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace supersonic {

enum class Compute : std::uint8_t { fp32, bf16, int8, fp8 };

constexpr std::string_view name_of(Compute c) {
  constexpr std::string_view names[] = {"fp32", "bf16", "int8", "fp8"};
  return names[static_cast<int>(c)];
}
// The type of what layers hand on.
constexpr DType activation_of(Compute c) { return c == Compute::bf16 || c == Compute::fp8 ? DType::bf16 : DType::f32; }

}  // namespace supersonic
