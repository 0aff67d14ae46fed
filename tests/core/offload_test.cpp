// Two places: kernels in device memory, parameters in host memory, lanes that run at random speeds. Everything must come out as
// on the CPU, bit for bit, at any budget.
#include <gtest/gtest.h>

#include <set>

#include "tiny_model.h"
#include "two_place_backend.h"

namespace supersonic::testing {
namespace {

constexpr Place kDevice{Place::device, 0};

std::vector<std::size_t> four_budgets(const TinyModel& model, Backend& backend) {
  auto fn = [&] { return model.step(); };
  const std::size_t most = plan_only(fn, backend, {})->peak(kDevice), least = least_budget(fn, backend);
  return {SIZE_MAX, least + (most - least) / 2, least + (most - least) / 5, least};
}

TEST(TwoPlaces, TrainingEqualsTheCpuUnderTwentySeedsAndFourBudgets) {
  const TinyModel model(3);
  Executor cpu(cpu_backend());
  const Trace want = train(model, cpu, {});
  std::set<std::string> levels;
  for (unsigned seed = 0; seed < 20; ++seed) {
    TwoPlaceBackend backend(seed);
    static const auto budgets = four_budgets(model, backend);
    for (std::size_t budget : budgets) {
      Policy policy;
      policy.budget = budget;
      Executor executor(backend);
      const Trace got = train(model, executor, policy, 2, [&] { backend.poison(); });
      EXPECT_EQ(got.losses, want.losses) << "seed " << seed << " budget " << budget;
      EXPECT_TRUE(got.state == want.state) << "seed " << seed << " budget " << budget;
      levels.insert(plan_only([&] { return model.step(); }, backend, policy)->level());
    }
  }
  EXPECT_GE(levels.size(), 3u);
}

TEST(TwoPlaces, WithEstimatesRegionsAreSentAwayBeforeTheyAreRecomputed) {
  const TinyModel model(6);
  Executor cpu(cpu_backend());
  const Trace want = train(model, cpu, {});
  auto fn = [&] { return model.step(); };
  for (const double link : {1e-12, 1e-10, 1e-7}) {  // seconds a byte: nothing, some and hardly any of it is hidden
    TwoPlaceBackend backend(7);
    backend.link_seconds = link;
    const std::size_t most = plan_only(fn, backend, {})->peak(kDevice), least = least_budget(fn, backend);
    bool sent_alone = false;
    std::set<std::string> levels;
    for (int k = 0; k <= 12; ++k) {
      Policy policy;
      policy.budget = least + (most - least) * k / 12;
      const auto plan = plan_only(fn, backend, policy);
      EXPECT_LE(plan->peak(kDevice), policy.budget);
      if (!levels.insert(plan->level()).second) continue;
      sent_alone |= plan->level().starts_with("activations of ");
      Executor executor(backend);
      const Trace got = train(model, executor, policy, 2, [&] { backend.poison(); });
      EXPECT_TRUE(got == want) << "link " << link << " " << plan->level();
    }
    EXPECT_GE(levels.size(), 4u) << link;
    EXPECT_EQ(sent_alone, link < 1e-9) << link;
  }
}

// Seconds until the last lane ends when every step takes exactly what the backend estimates.
double played(const Plan& plan, const Backend& backend) {
  std::array<double, kLanes> at{};
  std::vector<double> event(static_cast<std::size_t>(plan.events()));
  for (const Step& s : plan.steps()) {
    double& lane = at[static_cast<int>(s.lane)];
    for (int w : s.waits) lane = std::max(lane, event[w]);
    lane += s.copy ? backend.copy_seconds(s.out[0].bytes) : backend.seconds(s.problem);
    if (s.signal >= 0) event[s.signal] = lane;
  }
  return *std::max_element(at.begin(), at.end());
}

TEST(TwoPlaces, CopiesAreHiddenBehindComputation) {
  const TinyModel model(12);
  auto fn = [&] { return model.step(); };
  TwoPlaceBackend backend(1);
  backend.link_seconds = 2e-10;
  Policy policy;
  policy.budget = least_budget(fn, backend) * 3 / 2;
  const auto plan = plan_only(fn, backend, policy);
  double computing = 0, copying = 0;
  for (const Step& s : plan->steps()) {
    if (!s.copy) computing += backend.seconds(s.problem);
    if (s.lane == LaneKind::copy_out) copying += backend.copy_seconds(s.out[0].bytes);
  }
  EXPECT_GT(copying, computing / 10) << plan->level();
  EXPECT_LE(played(*plan, backend), computing * 1.02) << plan->level();
}

TEST(TwoPlaces, TheLastLevelSendsBoundariesToHostMemoryAndNeedsLess) {
  const TinyModel model(6);
  TwoPlaceBackend backend(1);
  auto fn = [&] { return model.step(); };
  Policy inside;
  inside.offload = false;
  const std::size_t kept = least_budget(fn, backend, inside), sent = least_budget(fn, backend);
  EXPECT_LT(sent, kept);
  Policy policy;
  policy.budget = sent;
  const auto plan = plan_only(fn, backend, policy);
  EXPECT_NE(plan->level().find("boundaries in host memory"), std::string::npos) << plan->level();
  EXPECT_GT(plan->peak(Place{}), 0u);  // the activations that wait
  plan->verify();
}

TEST(TwoPlaces, CopiesStartEarlyUnlessTheBudgetForbidsIt) {
  const TinyModel model(4);
  TwoPlaceBackend backend(1);
  auto fn = [&] { return model.step(); };
  // Steps between the start of a copy-in and its first reader, summed.
  auto lead = [](const Plan& plan) {
    int total = 0;
    for (std::size_t i = 0; i < plan.steps().size(); ++i) {
      if (plan.steps()[i].lane != LaneKind::copy_in) continue;
      for (std::size_t j = i + 1; j < plan.steps().size(); ++j) {
        bool reads = false;
        for (const auto& at : plan.steps()[j].in) reads |= at.value == plan.steps()[i].out[0].value;
        if (reads) {
          total += static_cast<int>(j - i);
          break;
        }
      }
    }
    return total;
  };
  Policy tight;
  tight.budget = least_budget(fn, backend);
  const auto wide = plan_only(fn, backend, {}), narrow = plan_only(fn, backend, tight);
  EXPECT_GT(lead(*wide), lead(*narrow));
}

TEST(TwoPlaces, AWeightIsInDeviceMemoryOnlyAroundItsUse) {
  const TinyModel shallow(2), deep(8);
  TwoPlaceBackend backend(1);
  Policy policy;
  policy.checkpoint_regions = 100;
  const auto few = plan_only([&] { return shallow.step(); }, backend, policy), many = plan_only([&] { return deep.step(); }, backend, policy);
  // Six more layers add their boundaries, not their weights.
  const std::size_t boundary = TinyModel::kTokens * TinyModel::kDim * 4;
  EXPECT_LE(many->peak(kDevice), few->peak(kDevice) + 6 * (boundary + 1024));
}

TEST(TwoPlaces, ResultsOfEveryKindComeHome) {
  const StorageRef x = random_storage({Shape{6, 10}, DType::f32, nullptr}, 3, 1);
  auto fn = [&] {
    const Tensor t = from_storage(x), y = exp(t);
    return Tensors{y, permute(y, {1, 0}), t, slice(t, 1, 2, 5), y, reshape(permute(t, {1, 0}), {3, 20})};
  };
  const auto want = run(fn);
  for (unsigned seed = 0; seed < 5; ++seed) {
    TwoPlaceBackend backend(seed);
    Executor executor(backend);
    Program program = Program::capture(fn, executor);
    program.plan().verify();
    program.run();
    for (std::size_t r = 0; r < want.size(); ++r)
      for (std::size_t i = 0; i < want[r].size(); ++i)
        ASSERT_EQ(get(program.result(static_cast<int>(r)), static_cast<std::int64_t>(i)), want[r][i]) << "result " << r;
  }
}

TEST(TwoPlaces, AReadAfterAWriteSeesItAndAReadBeforeDoesNot) {
  const StorageRef x = random_storage({Shape{64}, DType::f32, nullptr}, 3, 1), start = random_storage({Shape{64}, DType::f32, nullptr}, 3, 1);
  for (unsigned seed = 0; seed < 20; ++seed) {
    TwoPlaceBackend backend(seed);
    Executor executor(backend);
    std::memcpy(x->as<void>(), start->as<void>(), x->bytes);
    Program program = Program::capture(
        [&] {
          const Tensor t = from_storage(x);
          const Tensor before = scale(t, 2);
          accumulate(t, before);
          Region region;  // another epoch, whose copy would start early
          const Tensor between = scale(t, 2);
          assign(slice(t, 0, 0, 32), slice(between, 0, 32, 64));
          Region next;
          return Tensors{before, between, scale(t, 1)};
        },
        executor);
    program.plan().verify();
    program.run();
    const auto s = start->values<float>();
    for (int i = 0; i < 64; ++i) {
      ASSERT_EQ(program.result(0).values<float>()[i], s[i] * 2);
      ASSERT_EQ(program.result(1).values<float>()[i], (s[i] + s[i] * 2) * 2);
      const float last = i < 32 ? (s[i + 32] + s[i + 32] * 2) * 2 : s[i] + s[i] * 2;
      ASSERT_EQ(program.result(2).values<float>()[i], last);
      ASSERT_EQ(x->values<float>()[i], last);
    }
  }
}

TEST(TwoPlaces, Int8RowsArePreparedOnTheQueueToo) {
  const TinyModel model(2);
  Policy policy;
  policy.compute = Compute::int8;
  Executor cpu(cpu_backend());
  const Trace want = train(model, cpu, policy);
  for (unsigned seed = 0; seed < 3; ++seed) {
    TwoPlaceBackend backend(seed);
    Executor executor(backend);
    EXPECT_TRUE(train(model, executor, policy) == want);
  }
}

}  // namespace
}  // namespace supersonic::testing
