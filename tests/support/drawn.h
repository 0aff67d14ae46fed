// Whether random choices follow the probabilities that they should.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace supersonic::testing {

// counts: how often each of the choices was made in `draws`. What has no probability was never
// chosen, and chi-square of the others, at least five, is within five standard deviations.
inline void expect_drawn(const std::vector<int>& counts, const std::vector<double>& probabilities,
                         int draws) {
  double chi2 = 0;
  int cells = 0;
  for (std::size_t t = 0; t < probabilities.size(); ++t) {
    if (probabilities[t] == 0) {
      EXPECT_EQ(counts[t], 0);
      continue;
    }
    const double mean = draws * probabilities[t];
    chi2 += std::pow(counts[t] - mean, 2) / mean, ++cells;
  }
  ASSERT_GE(cells, 5);
  EXPECT_LT(chi2, cells + 5 * std::sqrt(2.0 * cells));
}

}  // namespace supersonic::testing
