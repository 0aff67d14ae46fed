// The plan of SmolLM2's training step, through the trainer itself: what a memory budget, fusion and
// prepared forms change in it, and that none of them changes the gradients.
#include <algorithm>

#include "smollm2_lora.h"

namespace supersonic::testing {
namespace {

constexpr std::int64_t kTokens = 192;

struct Outcome {
  double loss = 0;
  std::vector<float> gradients;
  std::size_t steps = 0, forms = 0, peak = 0, taken = 0;
  std::string level;
};

struct TrainingPlan : ::testing::Test {
  std::unique_ptr<Golden> golden;
  std::unique_ptr<Adapted> adapted;
  text::Batch batch;

  void SetUp() override {
    if (!std::filesystem::exists(model_path())) GTEST_SKIP() << "no model at " << model_path();
    golden = std::make_unique<Golden>("smollm2/lora");
    adapted = std::make_unique<Adapted>(*golden);
    batch = pack(golden->json()["sequences"], kTokens);
  }
  train::Trainer trainer(Compute compute, const Policy& policy) {
    return {adapted->model, adapted->lora, adapted->executor, kTokens, compute, {}, policy};
  }
  // Plans, verifies, runs one micro-batch.
  Outcome run(Compute compute, const Policy& policy) {
    train::Trainer t = trainer(compute, policy);
    const Plan& plan = t.plan();
    plan.verify();
    Outcome o;
    const auto gradients = adapted->lora.gradients->values<float>();
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    o.loss = t.accumulate(batch, 1.0f / static_cast<float>(batch.trained));
    o.gradients.assign(gradients.begin(), gradients.end());
    o.steps = plan.steps().size();
    for (const Step& s : plan.steps()) o.forms += s.form != nullptr;
    o.peak = plan.peak();
    o.taken = t.memory().total() - t.memory().arena;
    o.level = plan.level();
    return o;
  }
};

double difference(const Outcome& a, const Outcome& b) {
  double squares = 0, norm = 0;
  for (std::size_t i = 0; i < b.gradients.size(); ++i) {
    squares +=
        (double{a.gradients[i]} - b.gradients[i]) * (double{a.gradients[i]} - b.gradients[i]);
    norm += double{b.gradients[i]} * b.gradients[i];
  }
  EXPECT_GT(norm, 0);
  return std::sqrt(squares / norm);
}

TEST_F(TrainingPlan, ThreeBudgetsGiveThreePlansOfFallingPeakAndTheSameGradients) {
  const Outcome all = run(Compute::fp32, {});
  EXPECT_NEAR(all.loss, golden->json()["loss"].get<double>(), 1e-4 * all.loss);
  Outcome before = all;
  for (const double share : {0.7, 0.45}) {
    Policy policy;
    policy.budget = all.taken + static_cast<std::size_t>(share * static_cast<double>(all.peak));
    const Outcome less = run(Compute::fp32, policy);
    EXPECT_LE(less.taken + less.peak, policy.budget);
    EXPECT_LT(less.peak, before.peak);
    EXPECT_GT(less.steps, before.steps);  // what is recomputed is run twice
    EXPECT_NE(less.level, before.level);
    EXPECT_EQ(less.loss, all.loss);
    EXPECT_EQ(less.gradients, all.gradients);  // a clone does what its original did
    before = less;
  }
}

TEST_F(TrainingPlan, ABudgetThatNothingMeetsIsRefusedWithWhatTakesTheMemory) {
  Policy policy;
  auto refused = [&](std::size_t budget, std::initializer_list<const char*> words) {
    policy.budget = budget;
    try {
      trainer(Compute::fp32, policy);
      FAIL() << "a training step in " << budget << " bytes";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::memory);
      for (const char* word : words)
        EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << word << " in:\n"
                                                                       << e.what();
    }
  };
  refused(std::size_t{1} << 20, {"needs", "1.0 MiB", "beside", "At the peak", "LinearXent",
                                 "Raise --memory by", "smaller"});
  const std::size_t taken = run(Compute::fp32, {}).taken;
  refused(taken + (std::size_t{1} << 20),
          {"beside", "LinearXent", "% as long, or raise --memory by"});
}

TEST_F(TrainingPlan, WithoutFusionItHasMoreStepsAndTheSameGradients) {
  Policy apart;
  apart.fuse = false;
  const Outcome fused = run(Compute::fp32, {}), unfused = run(Compute::fp32, apart);
  EXPECT_LT(fused.steps, unfused.steps);
  EXPECT_LE(fused.peak, unfused.peak);
  EXPECT_NEAR(fused.loss, unfused.loss, 1e-6 * fused.loss);
  EXPECT_LE(difference(unfused, fused),
            1e-5);  // a sum of products rounds once when folded, else once a product
}

TEST_F(TrainingPlan, WithoutPreparedFormsEachProductMakesItsOwnInt8RowsOrNone) {
  Policy alone;
  alone.prepare = false;
  const Outcome shared = run(Compute::int8, {}), each = run(Compute::int8, alone),
                exact = run(Compute::fp32, {});
  EXPECT_GT(shared.forms, 0u);
  EXPECT_EQ(each.forms, 0u);
  EXPECT_EQ(shared.steps, each.steps + shared.forms);
  EXPECT_NE(shared.peak, each.peak);
  // int8 rounds activations to 1/127 of their group's largest; through 30 layers that moves
  // gradients by percents.
  EXPECT_NEAR(shared.loss, exact.loss, 0.02 * exact.loss);
  EXPECT_LE(difference(shared, exact), 0.25);
  EXPECT_LE(difference(each, exact), 0.25);
}

TEST_F(TrainingPlan, ExplainNamesEveryStepOfTheModel) {
  train::Trainer t = trainer(Compute::fp32, {});
  const std::string text = t.plan().explain();
  EXPECT_EQ(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')),
            t.plan().steps().size() + 2);
  for (const char* word : {"cpu.gemm", "cpu.attention", "linear_xent",
                           "decoder.cpp:", "model.layers.29.mlp.down_proj.weight"})
    EXPECT_NE(text.find(word), std::string::npos) << word;
}

}  // namespace
}  // namespace supersonic::testing
