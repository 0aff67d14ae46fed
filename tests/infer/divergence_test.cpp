// Divergence of two distributions against closed forms.
#include "infer/divergence.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace supersonic::infer {
namespace {

using Row = std::vector<float>;

TEST(Divergence, OfTwoCoinsIsTheClosedForm) {
  const double p = 0.8, q = 0.3;
  const Row reference = {static_cast<float>(std::log(p)), static_cast<float>(std::log(1 - p))};
  const Row logits = {static_cast<float>(std::log(q)) + 5,
                      static_cast<float>(std::log(1 - q)) + 5};  // a shift changes nothing
  const TokenDivergence d = compare_logits(logits, reference, 0);
  EXPECT_NEAR(d.kl, p * std::log(p / q) + (1 - p) * std::log((1 - p) / (1 - q)), 1e-6);
  EXPECT_NEAR(d.nll, -std::log(q), 1e-6);
  EXPECT_NEAR(d.reference_nll, -std::log(p), 1e-6);
  EXPECT_NEAR(d.probability_change, q - p, 1e-6);
  EXPECT_FALSE(d.same_top);
}

TEST(Divergence, OfADistributionFromItselfIsExactlyZero) {
  Row row(1000);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = 30 * std::sin(static_cast<float>(i));
  const TokenDivergence d = compare_logits(row, row, 17);
  EXPECT_EQ(d.kl, 0);
  EXPECT_EQ(d.probability_change, 0);
  EXPECT_TRUE(d.same_top);
}

TEST(Divergence, TokensWithoutProbabilityCountNothing) {
  const Row reference = {0, -1000, 0}, logits = {0, 40, 0};
  const TokenDivergence d = compare_logits(logits, reference, 0);
  EXPECT_NEAR(d.kl, std::log(std::exp(40.0) + 2) - std::log(2.0), 1e-4);
}

TEST(Divergence, SizesAndTokensAreChecked) {
  const Row two(2), three(3);
  EXPECT_THROW(compare_logits(two, three, 0), Error);
  EXPECT_THROW(compare_logits(two, two, 2), Error);
  EXPECT_THROW(compare_logits(two, two, -1), Error);
}

TEST(Divergence, SummaryOfAKnownRow) {
  std::vector<TokenDivergence> all;
  for (int i = 100; i >= 0; --i) {
    TokenDivergence d;
    d.kl = i, d.nll = 2, d.reference_nll = 1, d.probability_change = i % 2 ? 0.1 : -0.1,
    d.same_top = i < 25;
    all.push_back(d);
  }
  const DivergenceSummary s = summarise(all);
  EXPECT_EQ(s.tokens, 101);
  EXPECT_NEAR(s.mean, 50, 1e-9);
  EXPECT_NEAR(s.median, 50, 1e-9);
  EXPECT_NEAR(s.p90, 90, 1e-9);
  EXPECT_NEAR(s.p99, 99, 1e-9);
  EXPECT_NEAR(s.p999, 99.9, 1e-9);
  EXPECT_EQ(s.max, 100);
  EXPECT_NEAR(s.same_top, 25.0 / 101, 1e-9);
  EXPECT_NEAR(s.rms_probability_change, 0.1, 1e-9);
  EXPECT_NEAR(s.ppl, std::exp(2.0), 1e-9);
  EXPECT_NEAR(s.reference_ppl, std::exp(1.0), 1e-9);
  std::vector<TokenDivergence> none;
  EXPECT_THROW(summarise(none), Error);
}

}  // namespace
}  // namespace supersonic::infer
