// SmolLM2 with the adapter of tests/golden/smollm2/lora on all its linears, and the batches that
// are recorded there: what the tests of gradients and of training plans share.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "io/qk_layout.h"
#include "support/golden.h"
#include "support/recipe.h"
#include "text/dataset_pack.h"
#include "train/trainer.h"

namespace supersonic::testing {

inline std::string model_path() {
  if (const char* p = std::getenv("SUPERSONIC_SMOLLM2")) return p;
  return fmt::format("{}/../../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf",
                     SUPERSONIC_GOLDEN_DIR);
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
      names.push_back(
          fmt::format("{}.{}", full.substr(6, block - 6), full.substr(full.rfind('.') + 1)));
      const auto a =
          recipe::uniform("lora " + names.back() + ".A", s.rank * s.in, g.json()["scale_A"]);
      auto b = recipe::uniform("lora " + names.back() + ".B", s.out * s.rank, g.json()["scale_B"]);
      if (turned(i))
        io::to_qk_layout(b, s.out / model.config.head_dim, model.config.head_dim,
                         io::QkLayout::interleaved);
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
    if (b && turned(i))
      io::to_qk_layout(m, s.out / model.config.head_dim, model.config.head_dim,
                       io::QkLayout::half_split);
    return m;
  }
};

// The sequences one after another in one micro-batch of `tokens`.
inline text::Batch pack(const nlohmann::json& sequences, std::int64_t tokens) {
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

}  // namespace supersonic::testing
