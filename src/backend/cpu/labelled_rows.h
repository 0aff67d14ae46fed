// The rows that a loss is taken over: those with a label.
#pragma once
#include <cstdint>

namespace supersonic::cpu {

// kept = the rows with a label, in order; returns how many.
inline std::int64_t list_labelled(const std::int32_t* labels, std::int64_t rows, std::int32_t* kept) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < rows; ++i)
    if (labels[i] >= 0) kept[count++] = static_cast<std::int32_t>(i);
  return count;
}

}  // namespace supersonic::cpu
