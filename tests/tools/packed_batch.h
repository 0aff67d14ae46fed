// Sequences of token ids as one micro-batch, for the probes: they lie one behind another in one row
// and do not see each other; every next token is learned.
#pragma once
#include <vector>

#include "text/dataset_pack.h"

namespace supersonic::testing {

inline text::Batch packed(const std::vector<std::vector<std::int32_t>>& sequences) {
  text::Batch b;
  for (const auto& ids : sequences) {
    const auto start = static_cast<std::int32_t>(b.ids.size());
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const bool last = t + 1 == ids.size();
      b.ids.push_back(ids[t]);
      b.labels.push_back(last ? text::kIgnore : ids[t + 1]);
      b.positions.push_back(static_cast<std::int32_t>(t));
      b.lo.push_back(start);
      b.trained += !last;
    }
  }
  return b;
}

}  // namespace supersonic::testing
