// config.json as transformers understands it (recorded by tests/oracle/record_io_configs.py):
// defaults, both spellings of the rotation, sliding layers. What we write from it means the same.
#include <nlohmann/json.hpp>

#include "io/hf_config.h"
#include "io/output_file.h"
#include "io_test_util.h"

namespace supersonic::io {
namespace {

void expect_same(const ModelConfig& c, const nlohmann::json& e) {
  EXPECT_EQ(c.num_key_value_heads, e["kv_heads"]);
  EXPECT_EQ(c.head_dim, e["head_dim"]);
  EXPECT_EQ(c.max_position_embeddings, e["max_position"]);
  EXPECT_EQ(c.rms_norm_eps, e["eps"]);
  EXPECT_EQ(c.tie_word_embeddings, e["tied"]);
  EXPECT_EQ(c.rope_theta, e["theta"]);
  EXPECT_EQ(name_of(c.rope_scaling.kind), e["rope"].get<std::string>());
  EXPECT_EQ(c.rope_scaling.factor, e["factor"]);
  if (e["original"] != 0) {
    EXPECT_EQ(c.rope_scaling.original_max_position, e["original"]);
  }
  EXPECT_EQ(c.sliding_window, e["window"]);
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
    EXPECT_EQ(c.slides(i), e["slides"][static_cast<std::size_t>(i)]);
  EXPECT_EQ(c.local_rope_theta, e["local_theta"]);
  for (std::size_t i = 0; i < e["rotates"].size(); ++i)
    EXPECT_EQ(c.rotates(static_cast<std::int64_t>(i)), e["rotates"][i]);
  EXPECT_EQ(c.attention_cap, e["caps"][0]);
  EXPECT_EQ(c.logit_cap, e["caps"][1]);
  EXPECT_EQ(c.experts.count, e["experts"][0]);
  EXPECT_EQ(c.experts.used, e["experts"][1]);
  EXPECT_EQ(c.eos_token_ids, e["eos"].get<std::vector<std::int64_t>>());
}

TEST(HfConfigGolden, means_what_transformers_says) {
  const auto golden =
      nlohmann::json::parse(read_file(SUPERSONIC_GOLDEN_DIR "/io/hf_configs.json", 1 << 24));
  ASSERT_GE(golden["cases"].size(), 33u);
  for (const auto& item : golden["cases"]) {
    SCOPED_TRACE(item["name"].get<std::string>());
    const ModelConfig c = model_config_from_json(item["config"].dump(), "config.json");
    expect_same(c, item["expected"]);
    expect_same(model_config_from_json(to_config_json(c), "written.json"), item["expected"]);
  }
}

}  // namespace
}  // namespace supersonic::io
