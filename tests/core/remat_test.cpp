// Recomputation and the policy loop: less memory, the same bits.
#include <gtest/gtest.h>

#include <set>

#include "tiny_model.h"

namespace supersonic::testing {
namespace {

Policy with_regions(int n) {
  Policy p;
  p.checkpoint_regions = n;
  return p;
}
Policy kept() {
  Policy p;
  p.remat_cheap = false;
  return p;
}

TEST(Remat, EachLevelNeedsLessAndComputesTheSame) {
  const TinyModel model(4);
  auto fn = [&] { return model.step(); };
  std::vector<Policy> policies = {kept(), with_regions(0), with_regions(2), with_regions(4)};
  std::vector<std::size_t> peaks;
  Executor executor(cpu_backend());
  const Trace want = train(model, executor, kept());
  for (const auto& p : policies) {
    peaks.push_back(plan_only(fn, cpu_backend(), p)->peak());
    EXPECT_TRUE(train(model, executor, p) == want) << peaks.size();
  }
  for (std::size_t i = 1; i < peaks.size(); ++i) EXPECT_LT(peaks[i], peaks[i - 1]) << "level " << i;
}

TEST(Remat, ARegionMoreCostsItsBoundaryAlone) {
  auto peak = [](int depth) {
    const TinyModel model(depth);
    return plan_only([&] { return model.step(); }, cpu_backend(), with_regions(depth))->peak();
  };
  const std::size_t boundary = TinyModel::kTokens * TinyModel::kDim * 4;
  const std::size_t five = peak(5), nine = peak(9);
  EXPECT_EQ(nine - five, 4 * boundary);
}

TEST(Remat, PeakInBytesOfAPlainChainOfCheapOperations) {
  const StorageRef x = random_storage({Shape{64, 64}, DType::f32, nullptr}, 1, 0.1);
  const std::size_t matrix = 64 * 64 * 4;
  Policy plain;
  plain.fuse = false;
  const auto plan = plan_only([&] { return Tensors{exp(exp(exp(from_storage(x))))}; }, cpu_backend(), plain);
  EXPECT_EQ(plan->peak(), matrix) << "in place after the first";
  Policy apart = plain;
  apart.reuse = false;
  EXPECT_EQ(plan_only([&] { return Tensors{exp(exp(exp(from_storage(x))))}; }, cpu_backend(), apart)->peak(), 2 * matrix);
}

TEST(Remat, ThreeBudgetsGiveThreePlansAndOneResult) {
  const TinyModel model(4);
  auto fn = [&] { return model.step(); };
  const std::size_t most = plan_only(fn, cpu_backend(), {})->peak(), least = least_budget(fn, cpu_backend());
  ASSERT_LT(least, most);
  Executor executor(cpu_backend());
  const Trace want = train(model, executor, {});
  std::set<std::string> levels;
  for (std::size_t budget : {most, least + (most - least) / 2, least}) {
    Policy p;
    p.budget = budget;
    const auto plan = plan_only(fn, cpu_backend(), p);
    EXPECT_LE(plan->peak(), budget);
    levels.insert(plan->level());
    EXPECT_TRUE(train(model, executor, p) == want) << plan->level();
  }
  EXPECT_EQ(levels.size(), 3u);
}

TEST(Remat, NeverCrossesAWrite) {
  // The inside of the region reads s, which is written before backward: what the region made must be kept, not made again. The
  // product's own backward is recorded after the write and reads the new s.
  const StorageRef x = random_storage({Shape{32}, DType::f32, nullptr}, 1, 1), s = random_storage({Shape{32}, DType::f32, nullptr}, 2, 1);
  const auto start = bytes_in(*s);
  std::vector<double> want(32);
  for (int i = 0; i < 32; ++i) want[i] = 2 * 100 * std::exp(2.0 * x->values<float>()[i] * s->values<float>()[i]);
  for (int regions : {0, 1}) {
    std::memcpy(s->as<void>(), start.data(), s->bytes);
    const auto got = run([&] {
      const Tensor leaf = from_storage(x);
      Tensor y;
      {
        Region region;
        y = exp(mul(leaf, from_storage(s)));
      }
      const Tensor loss = sum(mul(y, y), 0);
      assign(from_storage(s), fill({32}, DType::f32, 100));
      return gradients(loss, std::span(&leaf, 1));
    }, with_regions(regions));
    EXPECT_LE(relative_error(got[0], want), 1e-6);
  }
}

TEST(Remat, RegionsAreCountedFromOneInEachStretch) {
  const StorageRef x = random_storage({Shape{16, 16}, DType::f32, nullptr}, 1, 0.3);
  auto stretch = [&] {
    Tensor y = from_storage(x);
    for (int l = 0; l < 2; ++l) {
      Region region;
      y = linear(silu(linear(y, from_storage(x))), from_storage(x));
    }
    const Tensor leaf = from_storage(x);
    return gradients(sum(reshape(y, {256}), 0), std::span(&leaf, 1));
  };
  for (int k = 0; k < 5; ++k) {
    const Tensors g = stretch();  // on the thread's own tape: region numbers go on rising
    eval();
  }
  const auto before = plan_cache_stats();
  Executor executor(cpu_backend());
  TapeScope scope;
  for (int k = 0; k < 5; ++k) { Region r; }
  const Tensors g = stretch();
  std::vector<StorageRef> results = {Storage::make(g[0].spec())};
  const auto plan = Plan::build(scope.tape().nodes(), g, results, cpu_backend(), with_regions(100));
  EXPECT_EQ(plan->level(), "2 of 2 regions recomputed");
  EXPECT_EQ(plan_cache_stats().misses, before.misses);
}

TEST(Remat, ARefusedBudgetSaysWhatTakesTheMemoryAndWhatWouldFit) {
  const TinyModel model(4);
  auto fn = [&] { return model.step(); };
  Policy p;
  p.budget = least_budget(fn, cpu_backend()) / 2;
  try {
    plan_only(fn, cpu_backend(), p);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::memory);
    const std::string text = e.what();
    EXPECT_NE(text.find("At the peak:"), std::string::npos) << text;
    EXPECT_NE(text.find("tiny_model.h:"), std::string::npos) << text;
    EXPECT_NE(text.find("raise --memory by"), std::string::npos) << text;
    EXPECT_NE(text.find("% as long"), std::string::npos) << text;
  }
}

TEST(Remat, WhatLivesAtThePeakAddsUpToIt) {
  const TinyModel model(4);
  for (const Policy& p : {kept(), Policy{}, with_regions(4)}) {
    const auto plan = plan_only([&] { return model.step(); }, cpu_backend(), p);
    const auto items = plan->at_peak();
    ASSERT_FALSE(items.empty());
    std::size_t total = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      total += items[i].bytes;
      if (i) {
        EXPECT_LE(items[i].bytes, items[i - 1].bytes);
      }
    }
    EXPECT_LE(total, plan->peak());
    EXPECT_GE(total, plan->peak() * 9 / 10) << "placement wastes more than a tenth";
  }
}

}  // namespace
}  // namespace supersonic::testing
