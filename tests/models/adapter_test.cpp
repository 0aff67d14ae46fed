// Adapters fitted to a model: what reaches a linear is scale * B A in the model's own row order,
// and what was put in comes out again.
#include "models/adapter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "infer/random_model.h"
#include "infer/score.h"
#include "io/qk_layout.h"

namespace supersonic::testing {
namespace {

namespace fs = std::filesystem;

io::LoraModule module(const std::string& name, std::int64_t out, std::int64_t in,
                      std::int64_t rank) {
  io::LoraModule m;
  m.name = name, m.rank = rank, m.in = in, m.out = out, m.alpha = 6;
  m.a = recipe::uniform(name + ".A", static_cast<std::size_t>(rank * in), 0.5f);
  m.b = recipe::uniform(name + ".B", static_cast<std::size_t>(out * rank), 0.5f);
  return m;
}

// Modules of different ranks, in the order of their names.
io::LoraAdapter some_adapter() {
  io::LoraAdapter a;
  a.config.rank = 3, a.config.alpha = 6;
  a.modules = {module("model.layers.0.mlp.down_proj", 64, 96, 3),
               module("model.layers.0.self_attn.q_proj", 64, 64, 3),
               module("model.layers.1.self_attn.k_proj", 32, 64, 5),
               module("model.layers.1.self_attn.v_proj", 32, 64, 3)};
  return a;
}

std::vector<float> last_logits(const models::Model& model, const nn::LoraSet* lora) {
  Executor executor(cpu_backend());
  const auto ids = random_ids(20, model.config.vocab_size);
  infer::Scorer scorer(model, executor, Compute::fp32, 20, true, lora);
  scorer.nll(ids, std::vector<std::int32_t>(20, -1));
  const auto row = scorer.logits(19);
  return {row.begin(), row.end()};
}

// W + scale B A, computed here.
void merge(nn::Linear& l, const io::LoraModule& m, float scale) {
  StorageRef w = Storage::make(l.weight->spec, l.name);
  for (std::int64_t i = 0; i < m.out; ++i)
    for (std::int64_t j = 0; j < m.in; ++j) {
      double sum = 0;
      for (std::int64_t r = 0; r < m.rank; ++r)
        sum += static_cast<double>(m.b[i * m.rank + r]) * m.a[r * m.in + j];
      w->as<float>()[i * m.in + j] =
          l.weight->as<float>()[i * m.in + j] + static_cast<float>(scale * sum);
    }
  l.weight = w;
}

nn::Linear& linear_of(models::Model& model, const std::string& name) {
  for (nn::Linear* l : model.linears())
    if (l->name == name) return *l;
  throw std::runtime_error(name);
}

// The same model as a GGUF file of architecture llama has it: rows of q and k interleaved.
void interleave(models::Model& model) {
  for (auto& layer : model.layers)
    for (nn::Linear* l : {&layer.q, &layer.k}) {
      std::vector<float> w(l->weight->values<float>().begin(), l->weight->values<float>().end());
      io::to_qk_layout(w, l->weight->spec.shape[0] / model.config.head_dim, model.config.head_dim,
                       io::QkLayout::interleaved);
      l->weight = Storage::make(l->weight->spec, l->name);
      std::copy(w.begin(), w.end(), l->weight->as<float>());
    }
  model.interleaved_rope = true;
}

TEST(Adapter, AttachedEqualsMergedByHand) {
  const io::LoraAdapter adapter = some_adapter();
  models::Model merged = random_model();
  for (const auto& m : adapter.modules)
    merge(linear_of(merged, m.name), m, static_cast<float>(6.0 / static_cast<double>(m.rank)));
  const auto expected = last_logits(merged, nullptr);
  for (const bool interleaved : {false, true}) {
    models::Model model = random_model();
    if (interleaved) interleave(model);
    EXPECT_GT(relative_difference(last_logits(model, nullptr), expected), 1e-2);
    const nn::LoraSet set = models::attach_adapter(model, adapter, "test");
    EXPECT_LE(relative_difference(last_logits(model, &set), expected), 2e-5)
        << (interleaved ? "interleaved" : "half-split");
  }
}

TEST(Adapter, NamesAndRowsOfGgufMeanTheSame) {
  const io::LoraAdapter adapter = some_adapter();
  models::Model model = random_model();
  const nn::LoraSet set = models::attach_adapter(model, adapter, "test");
  const auto expected = last_logits(model, &set);
  io::LoraAdapter other = adapter;
  for (auto& m : other.modules) {
    const bool turned = m.name.ends_with("q_proj") || m.name.ends_with("k_proj");
    if (turned) io::to_qk_layout(m.b, m.out / 16, 16, io::QkLayout::interleaved);
    m.name = models::gguf_name(model.config, m.name) + ".weight";
  }
  for (const bool interleaved : {false, true}) {
    models::Model again = random_model();
    if (interleaved) interleave(again);
    const nn::LoraSet from_gguf = models::attach_adapter(again, other, "test");
    EXPECT_LE(relative_difference(last_logits(again, &from_gguf), expected), 2e-5);
  }
}

TEST(Adapter, ExtractedIsWhatWasAttached) {
  for (const bool interleaved : {false, true}) {
    models::Model model = random_model();
    if (interleaved) interleave(model);
    const io::LoraAdapter adapter = some_adapter();
    const nn::LoraSet set = models::attach_adapter(model, adapter, "test");
    const io::LoraAdapter back = models::extract_adapter(model, set, adapter.config);
    ASSERT_EQ(back.modules.size(), adapter.modules.size());
    for (std::size_t i = 0; i < back.modules.size(); ++i) {
      EXPECT_EQ(back.modules[i].name, adapter.modules[i].name);
      EXPECT_EQ(back.modules[i].rank, adapter.modules[i].rank);
      EXPECT_NEAR(back.modules[i].alpha, adapter.modules[i].alpha, 1e-6);
      EXPECT_EQ(back.modules[i].a, adapter.modules[i].a);
      EXPECT_EQ(back.modules[i].b, adapter.modules[i].b);
    }
  }
}

TEST(Adapter, WhatDoesNotFitIsRefusedByName) {
  const auto refusal = [](const io::LoraModule& m) -> std::string {
    models::Model model = random_model();
    io::LoraAdapter adapter;
    adapter.modules = {m};
    try {
      models::attach_adapter(model, adapter, "some/folder");
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_file);
      return e.what();
    }
    return {};
  };
  EXPECT_NE(refusal(module("model.layers.2.self_attn.q_proj", 64, 64, 3)).find("some/folder"),
            std::string::npos);
  EXPECT_NE(refusal(module("model.layers.2.self_attn.q_proj", 64, 64, 3)).find("layers.2"),
            std::string::npos);
  EXPECT_NE(refusal(module("lm_head", 101, 64, 3)).find("lm_head"), std::string::npos);
  EXPECT_NE(refusal(module("blk.0.nonsense.weight", 64, 64, 3)).find("nonsense"),
            std::string::npos);
  EXPECT_NE(refusal(module("model.layers.0.self_attn.q_proj", 64, 32, 3)).find("64 x 32"),
            std::string::npos);
  EXPECT_EQ(refusal(module("model.layers.0.self_attn.q_proj", 64, 64, 3)), "");
}

TEST(Adapter, FoldersAreFoundAsTheyAreGiven) {
  const models::Model model = random_model();
  const fs::path root = fs::path(::testing::TempDir()) / "adapter_test";
  fs::remove_all(root);
  io::LoraAdapter adapter = some_adapter();
  adapter.config.target_modules = {"q_proj", "k_proj", "v_proj", "down_proj"};
  io::write_peft_adapter((root / "out" / "adapter").string(), adapter);
  EXPECT_EQ(models::read_adapter((root / "out").string(), model).modules.size(), 4u);
  EXPECT_EQ(models::read_adapter((root / "out" / "adapter").string(), model).modules.size(), 4u);
  EXPECT_THROW(models::read_adapter(root.string(), model), Error);
  EXPECT_THROW(models::read_adapter((root / "none").string(), model), Error);
  io::GgufAdapter gguf{"llama", adapter};
  for (auto& m : gguf.adapter.modules) m.name = models::gguf_name(model.config, m.name) + ".weight";
  io::write_gguf_adapter((root / "a.gguf").string(), gguf);
  EXPECT_EQ(models::read_adapter((root / "a.gguf").string(), model).modules.size(), 4u);
  gguf.architecture = "qwen2";
  io::write_gguf_adapter((root / "b.gguf").string(), gguf);
  EXPECT_THROW(models::read_adapter((root / "b.gguf").string(), model), Error);
  fs::remove_all(root);
}

}  // namespace
}  // namespace supersonic::testing
