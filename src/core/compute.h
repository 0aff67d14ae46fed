// The arithmetic of a matrix product. Operands are rounded to it, sums are always fp32.
#pragma once
#include <cstdint>

namespace supersonic {

enum class Compute : std::uint8_t { fp32, bf16, int8 };

}  // namespace supersonic
