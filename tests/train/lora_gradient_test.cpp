// SmolLM2's LoRA gradients and training steps against PEFT's (tests/golden/smollm2/lora, steps), in fp32, on the 4-bit file itself.
#include "smollm2_lora.h"

namespace supersonic::testing {
namespace {

TEST(LoraGradient, LossAndEveryGradientEqualPeft) {
  if (!std::filesystem::exists(model_path())) GTEST_SKIP() << "no model at " << model_path();
  const Golden g("smollm2/lora");
  Adapted s(g);
  train::Trainer trainer(s.model, s.lora, s.executor, 192, Compute::fp32, {});
  trainer.plan().verify();
  const text::Batch batch = pack(g.json()["sequences"], 192);
  const double loss = trainer.accumulate(batch, 1.0f / static_cast<float>(batch.trained));
  EXPECT_NEAR(loss, g.json()["loss"].get<double>(), 1e-4 * loss);
  const auto norms = g.array<float>("norm"), projections = g.array<float>("projections");
  const std::vector<std::string> golden_names = g.json()["names"];
  std::size_t checked = 0;
  for (std::size_t i = 0; i < s.names.size(); ++i) {
    for (int b : {0, 1}) {
      const std::string name = fmt::format("{}.{}", s.names[i], b ? "B" : "A");
      const std::size_t at = std::find(golden_names.begin(), golden_names.end(), name) - golden_names.begin();
      ASSERT_LT(at, golden_names.size()) << name;
      const auto ours = s.matrix(*s.lora.gradients, i, b);
      EXPECT_LE(recipe::relative_error(ours, std::span(projections).subspan(at * 16, 16), norms[at]), 1e-4) << name;
      ++checked;
    }
  }
  EXPECT_EQ(checked, golden_names.size());
}

TEST(LoraGradient, TwentyStepsStayWithPeft) {
  if (!std::filesystem::exists(model_path())) GTEST_SKIP() << "no model at " << model_path();
  const Golden g("smollm2/steps");
  Adapted s(g);
  const auto& o = g.json()["optimizer"];
  train::OptimizerOptions options;
  options.weight_decay = o["weight_decay"];
  options.max_grad_norm = 0;
  train::Trainer trainer(s.model, s.lora, s.executor, 192, Compute::fp32, options);
  std::vector<text::Batch> batches;
  for (const auto& b : g.json()["batches"]) batches.push_back(pack(b.contains("sequences") ? b["sequences"] : b, 192));
  const std::vector<double> losses = g.json()["losses"];
  for (std::size_t step = 0; step < losses.size(); ++step) {
    const text::Batch& b = batches[step % batches.size()];
    const double loss = trainer.accumulate(b, 1.0f / static_cast<float>(b.trained));
    EXPECT_NEAR(loss, losses[step], 1e-3 * losses[step] + 1e-4) << "step " << step;
    trainer.step(static_cast<std::int64_t>(step) + 1, o["lr"]);
  }
}

}  // namespace
}  // namespace supersonic::testing
