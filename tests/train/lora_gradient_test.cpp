// SmolLM2's LoRA gradients and training steps against PEFT's (tests/golden/smollm2/lora, steps), in fp32, on the 4-bit file itself.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "io/qk_layout.h"
#include "support/golden.h"
#include "support/recipe.h"
#include "text/dataset_pack.h"
#include "train/lora_trainer.h"

namespace supersonic::testing {
namespace {

std::string model_path() {
  if (const char* p = std::getenv("SUPERSONIC_SMOLLM2")) return p;
  return fmt::format("{}/../../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf", SUPERSONIC_GOLDEN_DIR);
}

struct Adapted {
  models::Model model;
  nn::LoraSet lora;
  Executor executor{cpu_backend()};
  std::vector<std::string> names;  // of the slots, without "model." and the block's name

  explicit Adapted(const Golden& g) : model(models::load_model(model_path())) {
    lora = train::make_lora(model, {}, true);  // rank 16, alpha 32
    for (std::size_t i = 0; i < lora.slots.size(); ++i) {
      const auto& s = lora.slots[i];
      const std::string& full = lora.names[i];  // model.layers.0.self_attn.q_proj
      const std::size_t block = full.find('.', 13);
      names.push_back(fmt::format("{}.{}", full.substr(6, block - 6), full.substr(full.rfind('.') + 1)));
      const auto a = recipe::uniform("lora " + names.back() + ".A", s.rank * s.in, g.json()["scale_A"]);
      auto b = recipe::uniform("lora " + names.back() + ".B", s.out * s.rank, g.json()["scale_B"]);
      if (turned(i)) io::to_qk_layout(b, s.out / model.config.head_dim, model.config.head_dim, io::QkLayout::interleaved);
      std::copy(a.begin(), a.end(), lora.values->as<float>() + s.a);
      std::copy(b.begin(), b.end(), lora.values->as<float>() + s.b);
    }
  }
  // q and k rows lie interleaved in the GGUF file.
  bool turned(std::size_t i) const {
    return model.interleaved_rope && (names[i].ends_with("q_proj") || names[i].ends_with("k_proj"));
  }
  std::vector<float> matrix(const Storage& flat, std::size_t i, bool b) const {
    const auto& s = lora.slots[i];
    const float* from = flat.as<float>() + (b ? s.b : s.a);
    std::vector<float> m(from, from + (b ? s.out * s.rank : s.rank * s.in));
    if (b && turned(i)) io::to_qk_layout(m, s.out / model.config.head_dim, model.config.head_dim, io::QkLayout::half_split);
    return m;
  }
};

// The sequences one after another in one micro-batch of `tokens`.
text::Batch pack(const nlohmann::json& sequences, std::int64_t tokens) {
  text::Batch b;
  b.ids.assign(tokens, 0);
  b.labels.assign(tokens, text::kIgnore);
  b.positions.assign(tokens, 0);
  b.lo.resize(tokens);
  std::int32_t at = 0;
  for (const auto& s : sequences) {
    const std::vector<std::int32_t> ids = s["ids"], labels = s["labels"];
    for (std::size_t t = 0; t < ids.size(); ++t) {
      b.ids[at + t] = ids[t];
      b.positions[at + t] = static_cast<std::int32_t>(t);
      b.lo[at + t] = at;
      if (t + 1 < ids.size() && labels[t + 1] >= 0) {
        b.labels[at + t] = labels[t + 1];
        ++b.trained;
      }
    }
    at += static_cast<std::int32_t>(ids.size());
  }
  for (; at < tokens; ++at) b.lo[at] = at;
  return b;
}

TEST(LoraGradient, LossAndEveryGradientEqualPeft) {
  if (!std::filesystem::exists(model_path())) GTEST_SKIP() << "no model at " << model_path();
  const Golden g("smollm2/lora");
  Adapted s(g);
  train::LoraTrainer trainer(s.model, s.lora, s.executor, 192, Compute::fp32, {});
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
  train::LoraTrainer trainer(s.model, s.lora, s.executor, 192, Compute::fp32, options);
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
