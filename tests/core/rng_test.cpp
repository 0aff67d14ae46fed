// Philox against the known answers that Random123 publishes (kat_vectors), and the distributions
// drawn from it against their closed form at five standard errors.
#include "core/rng.h"

#include <gtest/gtest.h>

#include <vector>

namespace supersonic {
namespace {

TEST(Rng, PhiloxGivesThePublishedAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~0ull),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822ull),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, ReadsTheSameInOrderAndByIndex) {
  Rng in_order(7, 3, rng_site("dropout"), 9);
  const Rng by_index(7, 3, rng_site("dropout"), 9);
  for (std::uint64_t i = 0; i < 100; ++i) EXPECT_EQ(in_order.next(), by_index.at(i));
}

TEST(Rng, EveryPartOfTheKeyChangesTheStream) {
  const std::uint32_t base = Rng(1, 2, 3, 4).next();
  EXPECT_NE(base, Rng(1ull << 32 | 1, 2, 3, 4).next());
  EXPECT_NE(base, Rng(1, 3, 3, 4).next());
  EXPECT_NE(base, Rng(1, 2, 4, 4).next());
  EXPECT_NE(base, Rng(1, 2, 3, 5).next());
}

TEST(Rng, UniformAndNormalHaveTheirMoments) {
  constexpr int n = 200000;
  Rng rng(42, 0, rng_site("test"), 0);
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    const double u = rng.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u, squares += u * u;
  }
  EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
  sum = squares = 0;
  double fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(1.0 / n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth / n, 3, 5 * std::sqrt(96.0 / n));
}

TEST(Rng, BelowIsUniformOverItsRange) {
  constexpr int n = 120000, sides = 6;
  std::vector<int> counts(sides);
  Rng rng(5, 0, rng_site("test"), 0);
  for (int i = 0; i < n; ++i) ++counts[rng.below(sides)];
  double chi2 = 0;
  for (int c : counts) chi2 += (c - n / sides) * static_cast<double>(c - n / sides) / (n / sides);
  EXPECT_LT(chi2, 20.5);  // 5 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace supersonic
