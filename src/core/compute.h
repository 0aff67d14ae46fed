// The arithmetic of matrix products: what their operands are rounded to. Accumulation is fp32 throughout.
#pragma once
#include <cstdint>
#include <string_view>

namespace supersonic {

enum class Compute : std::uint8_t { fp32, bf16, int8 };

constexpr std::string_view name_of(Compute c) {
  constexpr std::string_view names[] = {"fp32", "bf16", "int8"};
  return names[static_cast<int>(c)];
}

}  // namespace supersonic
