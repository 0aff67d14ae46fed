// The dynamic 8-bit maps, workspace sizes and choice of the instruction set for AdamW.
#include "backend/cpu/kernels/adamw.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "backend/cpu/kernels/isa_table.h"

namespace supersonic::cpu {
namespace {

// Decade i of seven holds 2^i (signed) or 2^(i+1) (unsigned) equal cells of [0.1, 1], each
// represented by its middle, times 10^(i-6); 0 and 1 complete the 256 values (arXiv 2110.02861,
// section 2.2).
std::array<float, 256> dynamic_map(bool with_sign) {
  std::array<float, 256> map{};
  int n = 0;
  for (int i = 0; i < 7; ++i) {
    const int cells = 1 << (with_sign ? i : i + 1);
    for (int k = 0; k < cells; ++k) {
      const double value = (0.1 + 0.9 * (k + 0.5) / cells) * std::pow(10.0, i - 6);
      map[n++] = static_cast<float>(value);
      if (with_sign) map[n++] = static_cast<float>(-value);
    }
  }
  map[n++] = 0;
  map[n++] = 1;
  std::sort(map.begin(), map.end());
  return map;
}

}  // namespace

const float* dynamic_map_signed() {
  static const std::array<float, 256> map = dynamic_map(true);
  return map.data();
}
const float* dynamic_map_unsigned() {
  static const std::array<float, 256> map = dynamic_map(false);
  return map.data();
}

std::size_t gradient_norm_workspace(const GradientSpan* spans, int count) {
  std::int64_t chunks = 0;
  for (int i = 0; i < count; ++i) chunks += norm_chunks(spans[i].n);
  return static_cast<std::size_t>(chunks) * sizeof(double);
}

ISA_TABLE(AdamWKernels, adamw_kernels)

}  // namespace supersonic::cpu
