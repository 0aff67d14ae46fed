// Choosing a token at the end of a step, against choices made here: probabilities in fp64 by full
// sorts (transformers' order: penalty, temperature, top-k, top-p, min-p), and the first token by id
// at which their sum exceeds the draw.
#include "ops/sample_step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "infer/sampler.h"
#include "support/device.h"
#include "support/drawn.h"

namespace supersonic::testing {
namespace {

using Logits = std::vector<float>;
using infer::SamplerOptions;
constexpr float kInf = std::numeric_limits<float>::infinity(),
                kNan = std::numeric_limits<float>::quiet_NaN();

Logits random_logits(std::int64_t n, std::uint32_t seed, float step = 0) {
  Rng rng(seed, 0, rng_site("logits"), 0);
  Logits out(static_cast<std::size_t>(n));
  for (float& x : out) {
    x = static_cast<float>(3 * rng.normal());
    if (step > 0) x = step * std::round(x / step);  // many that are equal
  }
  return out;
}

StorageRef zeros(std::int64_t n, DType type) { return Storage::make({{n}, type, nullptr}); }

// A step's end that can be run again and again: each run's choice is the next one's input.
struct Steps {
  Backend& backend = test_backend();
  Executor executor{backend};
  StorageRef step = zeros(kStepFeeds, DType::i32), seen, chosen, logits,
             settings = zeros(kSamplingWords, DType::i32);
  Program program;

  Steps(const Logits& x, const SamplerOptions& o, std::int64_t row, std::int64_t slots,
        std::int64_t window = 0, const std::vector<int>& marked = {}, int vocabulary = 0)
      : seen(zeros(std::ssize(x), DType::u8)), chosen(zeros(slots, DType::i32)) {
    logits = Storage::make({{1, std::ssize(x)}, DType::f32, nullptr});
    std::copy(x.begin(), x.end(), logits->as<float>());
    const int tokens = vocabulary ? vocabulary : static_cast<int>(x.size());
    const Sampling s = infer::Sampler(tokens, o).settings();
    std::memcpy(settings->as<std::byte>(), &s, sizeof s);
    for (int t : marked) seen->as<std::uint8_t>()[t] = 1;
    set_step(step->as<std::int32_t>(), 0, static_cast<std::int32_t>(row), window);
    const auto there = placed({step, seen, chosen, logits, settings});
    step = there[0], seen = there[1], chosen = there[2], logits = there[3], settings = there[4];
    program = Program::capture(
        [&] {
          sample_step(from_storage(step), from_storage(seen), from_storage(chosen),
                      from_storage(logits), from_storage(settings), window);
          return Tensors{};
        },
        executor);
  }
  StorageRef home(const StorageRef& s) {
    StorageRef here = Storage::make(s->spec);
    copy_contents(*here, *s, backend);
    return here;
  }
  std::vector<std::int32_t> run(int times) {
    for (int i = 0; i < times; ++i) program.start();
    executor.finish();
    const auto got = home(chosen);
    const auto all = got->values<std::int32_t>();
    return {all.begin(), all.end()};
  }
};

std::vector<double> probabilities(Logits x, const SamplerOptions& o, const std::vector<int>& seen) {
  for (int t : seen) x[t] = x[t] > 0 ? x[t] / o.repetition_penalty : x[t] * o.repetition_penalty;
  std::vector<int> order;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (x[i] == x[i]) order.push_back(static_cast<int>(i));
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[a] > x[b]; });
  const bool greedy = o.temperature == 0;
  if (greedy) order.resize(1);
  if (o.top_k > 0 && o.top_k < std::ssize(order)) order.resize(o.top_k);
  std::vector<double> p(x.size());
  double total = 0, above = 0;
  for (int t : order)
    total += p[t] = greedy ? 1 : std::exp((double(x[t]) - x[order[0]]) / o.temperature);
  for (int t : order) {
    const double own = p[t];
    if (above >= o.top_p * total) p[t] = 0;
    above += own;
  }
  const double least = o.min_p * p[order[0]];
  for (double& v : p)
    if (v < least) v = 0;
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

std::int32_t expected(const std::vector<double>& p, const SamplerOptions& o, std::int64_t row) {
  double rest =
      Rng(o.seed, static_cast<std::uint32_t>(row + 1), rng_site("sampler"), o.sample).uniform();
  for (std::size_t i = 0; i < p.size(); ++i)
    if ((rest -= p[i]) < 0) return static_cast<std::int32_t>(i);
  return -1;
}

const SamplerOptions kSettings[] = {
    {.temperature = 0},
    {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 5},
    {.temperature = 0.7f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .seed = 6},
    {.temperature = 3, .top_k = 5, .top_p = 1, .min_p = 0, .seed = 7, .sample = 3},
    {.temperature = 2, .top_k = 0, .top_p = 0.6f, .min_p = 0, .seed = 8},
    {.temperature = 5,
     .top_k = 3000,
     .top_p = 0.9f,
     .min_p = 0.01f,
     .repetition_penalty = 1.5f,
     .seed = 1u << 31},
    {.temperature = 0.01f, .top_k = 0, .top_p = 0.999f, .min_p = 0, .seed = 10},
};

TEST(SampleStep, TheWeightsAreExponentials) {
  for (double x = 0; x < 46; x += 0.0137) {
    const long double want = std::exp2(44 - static_cast<long double>(x));
    // Half a unit by rounding, the fraction's 46 bits, and what the series leaves out.
    EXPECT_NEAR(static_cast<double>(sampling::weight(x) - want), 0, 0.5 + 0.3) << x;
  }
  EXPECT_EQ(sampling::weight(0), sampling::kMostLikely);
  EXPECT_EQ(sampling::weight(1), sampling::kMostLikely / 2);
  EXPECT_EQ(sampling::weight(INFINITY), 0u);
}

TEST(SampleStep, ChoosesAsTheClosedFormDoes) {
  for (const std::int64_t n : {1, 7, 101, 8192, 8193, 49152, 128256})
    for (const auto& o : kSettings)
      for (const std::uint32_t seed : {1u, 2u}) {
        SCOPED_TRACE(fmt::format("{} logits {}, seed {}", n, seed, o.seed));
        const Logits x = random_logits(n, seed, seed == 2 ? 0.5f : 0);
        const std::vector<int> seen = {0, static_cast<int>(n / 2)};
        Steps s(x, o, 41, 4, 0, seen);
        const auto p = probabilities(x, o, seen);
        const std::int32_t token = s.run(1)[41 % 4];
        EXPECT_EQ(token, expected(p, o, 41));
      }
}

TEST(SampleStep, TheChoiceIsTheNextStepsInput) {
  const Logits x = random_logits(300, 4);
  const SamplerOptions o{
      .temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .repetition_penalty = 1.3f, .seed = 2};
  Steps s(x, o, 10, 8, 6);
  const auto got = s.run(8);
  std::vector<int> seen;
  for (std::int64_t row = 10; row < 18; ++row) {
    const auto want = expected(probabilities(x, o, seen), o, row);
    EXPECT_EQ(got[row % 8], want) << row;
    if (std::find(seen.begin(), seen.end(), want) == seen.end()) seen.push_back(want);
  }
  const auto step = s.home(s.step);
  const std::int32_t want[] = {got[17 % 8], 18, 0, 18, 13, 18, 0};
  EXPECT_TRUE(std::equal(want, want + kStepFeeds, step->as<std::int32_t>()));
  const auto marks = s.home(s.seen);
  for (int t = 0; t < 300; ++t)
    EXPECT_EQ(marks->as<std::uint8_t>()[t] != 0,
              std::find(seen.begin(), seen.end(), t) != seen.end());
}

TEST(SampleStep, DrawsFollowTheDistribution) {
  constexpr int vocabulary = 9000, draws = 20000;
  Logits x(vocabulary, -40);
  const Logits few = random_logits(12, 9);
  for (int i = 0; i < 12; ++i) x[i * 749] = few[i];
  const SamplerOptions o{.temperature = 2, .top_k = 10, .top_p = 0.98f, .min_p = 0, .seed = 3};
  Steps s(x, o, 0, draws);
  std::vector<int> counts(vocabulary);
  for (std::int32_t t : s.run(draws)) ++counts[t];
  expect_drawn(counts, probabilities(x, o, {}), draws);
}

TEST(SampleStep, WhatIsNoNumberOrNoTokenIsNeverChosen) {
  for (const std::int64_t n : {6, 20000}) {
    Logits x(static_cast<std::size_t>(n), -kInf);
    x[0] = kNan, x[3] = 0, x[4] = kNan, x[5] = 9;
    for (const auto& o : kSettings) EXPECT_EQ(Steps(x, o, 0, 1, 0, {}, 5).run(1)[0], 3);
  }
}

TEST(SampleStep, BrokenLogitsAreReported) {
  for (const std::int64_t n : {6, 20000}) {
    const auto size = static_cast<std::size_t>(n);
    Logits infinite(size);
    infinite[2] = kInf;
    const SamplerOptions draws{.temperature = 1}, greedy{.temperature = 0};
    EXPECT_THROW(Steps(Logits(size, kNan), draws, 0, 1).run(1), Error);
    EXPECT_THROW(Steps(Logits(size, kNan), greedy, 0, 1).run(1), Error);
    EXPECT_THROW(Steps(Logits(size, -kInf), draws, 0, 1).run(1), Error);
    EXPECT_THROW(Steps(infinite, draws, 0, 1).run(1), Error);
    EXPECT_EQ(Steps(infinite, greedy, 0, 1).run(1)[0], 2);
    EXPECT_EQ(Steps(Logits(size, 1), greedy, 0, 1).run(1)[0], 0) << "the device goes on";
  }
}

TEST(SampleStep, ItsOperandsAreChecked) {
  const auto of = [](std::int64_t words, DType logits) {
    sample_step(from_storage(zeros(kStepFeeds, DType::i32)), from_storage(zeros(5, DType::u8)),
                from_storage(zeros(2, DType::i32)),
                from_storage(Storage::make({{1, 5}, logits, nullptr})),
                from_storage(zeros(words, DType::i32)), 0);
    Tape::current().nodes().clear();
  };
  of(kSamplingWords, DType::f32);
  EXPECT_THROW(of(kSamplingWords - 1, DType::f32), Error);
  EXPECT_THROW(of(kSamplingWords, DType::bf16), Error);
}

}  // namespace
}  // namespace supersonic::testing
