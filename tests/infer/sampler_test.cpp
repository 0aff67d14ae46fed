// The sampler against distributions computed here in fp64 from their definitions (transformers'
// order: penalty, temperature, top-k, top-p, min-p), and its draws against those distributions.
#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "support/drawn.h"

namespace supersonic::infer {
namespace {

constexpr SamplerOptions kPlain{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};

std::vector<float> random_logits(int n, std::uint32_t seed) {
  Rng rng(seed, 0, rng_site("logits"), 0);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& x : out) x = static_cast<float>(3 * rng.normal());
  return out;
}

// The closed form: a probability for every token, by full sorts over all of them.
std::vector<double> expected(std::vector<float> logits, const SamplerOptions& o,
                             const std::vector<int>& seen) {
  for (int t : seen)
    logits[t] = logits[t] > 0 ? logits[t] / o.repetition_penalty : logits[t] * o.repetition_penalty;
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  std::vector<double> p(logits.size());
  const auto normalise = [&] {
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
  };
  for (std::size_t i = 0; i < p.size(); ++i)
    p[i] = std::exp((double(logits[i]) - logits[order[0]]) / o.temperature);
  if (o.top_k > 0)
    for (std::size_t i = o.top_k; i < order.size(); ++i) p[order[i]] = 0;
  normalise();
  double above = 0;
  for (int t : order) {
    const double own = p[t];
    if (above >= o.top_p) p[t] = 0;
    above += own;
  }
  normalise();
  const double least = o.min_p * p[order[0]];
  for (double& x : p)
    if (x < least) x = 0;
  normalise();
  return p;
}

void expect_distribution(const SamplerOptions& options, int vocabulary, std::uint32_t seed) {
  const auto logits = random_logits(vocabulary, seed);
  const std::vector<int> seen = {1, 5, vocabulary - 1};
  Sampler sampler(vocabulary, options);
  for (int t : seen) sampler.accept(t);
  sampler.sample(logits, 0);
  std::vector<double> got(logits.size());
  double total = 0;
  for (const auto& c : sampler.candidates()) total += static_cast<double>(c.weight);
  for (const auto& c : sampler.candidates()) got[c.token] = static_cast<double>(c.weight) / total;
  const auto want = expected(logits, options, seen);
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-6) << "token " << i;
}

TEST(Sampler, DistributionsEqualTheClosedForm) {
  for (int vocabulary : {7, 50, 1000, 50000}) {
    for (std::uint32_t seed : {1u, 2u, 3u}) {
      expect_distribution(kPlain, vocabulary, seed);
      expect_distribution({.temperature = 0.7f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f},
                          vocabulary, seed);
      expect_distribution({.temperature = 1.5f, .top_k = 5, .top_p = 1, .min_p = 0}, vocabulary,
                          seed);
      expect_distribution({.temperature = 1, .top_k = 0, .top_p = 0.6f, .min_p = 0}, vocabulary,
                          seed);
      expect_distribution({.temperature = 2, .top_k = 0, .top_p = 1, .min_p = 0.1f}, vocabulary,
                          seed);
      expect_distribution({.temperature = 1,
                           .top_k = 0,
                           .top_p = 0.999f,
                           .min_p = 0.001f,
                           .repetition_penalty = 1.3f},
                          vocabulary, seed);
    }
  }
}

TEST(Sampler, DrawsFollowTheDistribution) {
  constexpr int vocabulary = 12, draws = 60000;
  const auto logits = random_logits(vocabulary, 9);
  const SamplerOptions options{
      .temperature = 2, .top_k = 10, .top_p = 0.98f, .min_p = 0, .seed = 3};
  Sampler sampler(vocabulary, options);
  std::vector<int> counts(vocabulary);
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(logits, static_cast<std::uint32_t>(i))];
  supersonic::testing::expect_drawn(counts, expected(logits, options, {}), draws);
}

TEST(Sampler, GreedyTakesTheFirstMaximum) {
  const std::vector<float> logits = {1, 3, 2, 3, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_EQ(Sampler(5, {.temperature = 0}).sample(logits, 0), 1);
  EXPECT_EQ(Sampler(5, {.temperature = 1, .top_k = 1}).sample(logits, 7), 1);
}

TEST(Sampler, ThePenaltyDividesPositiveAndMultipliesNegativeLogits) {
  Sampler sampler(3, {.temperature = 0, .repetition_penalty = 2});
  const std::vector<float> positive = {4, 3, 1}, negative = {-1, -1.5f, -9};
  EXPECT_EQ(sampler.sample(positive, 0), 0);
  sampler.accept(0);
  EXPECT_EQ(sampler.sample(positive, 1), 1);
  EXPECT_EQ(sampler.sample(negative, 1), 1);
  sampler.reset();
  EXPECT_EQ(sampler.sample(positive, 0), 0);
}

TEST(Sampler, TheSameSeedAndPositionDrawTheSameToken) {
  const auto logits = random_logits(300, 4);
  const auto text = [&](std::uint64_t seed, std::uint32_t sample) {
    SamplerOptions o = kPlain;
    o.seed = seed, o.sample = sample;
    Sampler sampler(300, o);
    std::vector<int> out;
    for (std::uint32_t i = 0; i < 20; ++i) out.push_back(sampler.sample(logits, i));
    return out;
  };
  EXPECT_EQ(text(1, 0), text(1, 0));
  EXPECT_NE(text(1, 0), text(2, 0));
  EXPECT_NE(text(1, 0), text(1, 1));
}

TEST(Sampler, ImpossibleAndBrokenLogitsAreNeverChosen) {
  constexpr float inf = std::numeric_limits<float>::infinity(),
                  nan = std::numeric_limits<float>::quiet_NaN();
  Sampler sampler(4, kPlain);
  for (std::uint32_t i = 0; i < 200; ++i)
    EXPECT_EQ(sampler.sample(std::vector<float>{-inf, nan, 0, -inf}, i), 2);
  EXPECT_THROW(sampler.sample(std::vector<float>{nan, nan, nan, nan}, 0), Error);
  EXPECT_THROW(sampler.sample(std::vector<float>{-inf, -inf, -inf, -inf}, 0), Error);
  EXPECT_THROW(sampler.sample(std::vector<float>{0, inf, 0, 0}, 0), Error);
  EXPECT_THROW(Sampler(4, {.temperature = 0}).sample(std::vector<float>{nan, nan, nan, nan}, 0),
               Error);
  EXPECT_THROW(sampler.sample(std::vector<float>{0, 0, 0}, 0), Error);
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  EXPECT_THROW(Sampler(4, {.temperature = -1}), Error);
  EXPECT_THROW(Sampler(4, {.top_k = -1}), Error);
  EXPECT_THROW(Sampler(4, {.top_p = 0}), Error);
  EXPECT_THROW(Sampler(4, {.min_p = 1.5f}), Error);
  EXPECT_THROW(Sampler(4, {.repetition_penalty = 0}), Error);
}

}  // namespace
}  // namespace supersonic::infer
