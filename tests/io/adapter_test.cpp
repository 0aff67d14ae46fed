// Adapters and the q/k row order. The permutation's oracle is the reshape that the converters'
// definition states: (heads, 2, head_dim/2, cols) with its middle axes swapped.
#include "io/adapter.h"

#include <cstring>
#include <fstream>
#include <numeric>

#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/module_pattern.h"
#include "io/qk_layout.h"
#include "io_test_util.h"

namespace supersonic::io {
namespace {

using io_test::error_of;
using io_test::mentions;
using io_test::TempDir;

TEST(QkLayout, interleaving_is_the_axis_swap_and_splitting_inverts_it) {
  constexpr int heads = 3, dim = 8, cols = 5;
  std::vector<float> x(heads * dim * cols);
  std::iota(x.begin(), x.end(), 0.0f);
  std::vector<float> y = x;
  to_qk_layout(y, heads, dim, QkLayout::interleaved);
  for (int h = 0; h < heads; ++h)
    for (int half = 0; half < 2; ++half)
      for (int j = 0; j < dim / 2; ++j)
        for (int c = 0; c < cols; ++c)
          ASSERT_EQ(y[((h * dim / 2 + j) * 2 + half) * cols + c],
                    x[((h * 2 + half) * dim / 2 + j) * cols + c]);
  to_qk_layout(y, heads, dim, QkLayout::half_split);
  EXPECT_EQ(y, x);
  EXPECT_EQ(qk_row_order(1, 4, QkLayout::interleaved), (std::vector<std::int64_t>{0, 2, 1, 3}));
  EXPECT_THROW(qk_row_order(1, 3, QkLayout::interleaved), Error);
}

TEST(ModulePattern, matches_from_the_right_at_a_dot) {
  EXPECT_TRUE(matches_module("q_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(matches_module("self_attn.q_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(matches_module(R"(layers\.\d+\.mlp.*)", "model.layers.12.mlp.up_proj"));
  EXPECT_TRUE(
      matches_module("^model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(matches_module("proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(matches_module("q_proj", "model.layers.0.self_attn.q_proj.x"));
  EXPECT_FALSE(matches_module("(a+)+b", std::string(200, 'a'))) << "matching is bounded";
  EXPECT_THROW(matches_module("(", "x"), Error);
}

LoraAdapter sample() {
  LoraAdapter a;
  a.config.rank = 2;
  a.config.alpha = 4;
  a.config.base_model = "org/base";
  a.modules = {{"model.layers.0.mlp.up_proj", 2, 3, 2, 4, {1, 2, 3, 4, 5, 6}, {1, 2, 3, 4}},
               {"model.layers.0.self_attn.q_proj", 1, 3, 2, 5, {1, 2, 3}, {4, 5}}};
  return a;
}

TEST(PeftAdapter, reads_back_what_it_wrote) {
  const TempDir dir;
  write_peft_adapter(dir / "out", sample());
  const LoraAdapter r = read_peft_adapter(dir / "out");
  EXPECT_EQ(r.config.rank, 2);
  EXPECT_EQ(r.config.target_modules, (std::vector<std::string>{"q_proj", "up_proj"}));
  EXPECT_EQ(r.config.base_model, "org/base");
  ASSERT_EQ(r.modules.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(r.modules[i].name, sample().modules[i].name);
    EXPECT_EQ(r.modules[i].a, sample().modules[i].a);
    EXPECT_EQ(r.modules[i].b, sample().modules[i].b);
  }
  EXPECT_EQ(lora_scale(r.config, r.modules[0]), 2.0);
  EXPECT_EQ(lora_scale(r.config, r.modules[1]), 5.0);
}

TEST(PeftAdapter, refuses_what_it_cannot_apply_and_tolerates_what_it_need_not_know) {
  const auto config = [](const std::string& more) {
    return lora_config_from_json(R"({"peft_type":"LORA","r":8,)" + more + "}",
                                 "adapter_config.json");
  };
  EXPECT_EQ(
      config(R"("lora_alpha":16,"something_new":{"x":[1]},"modules_to_save":null,"use_dora":false)")
          .alpha,
      16);
  for (const char* key :
       {R"("use_dora":true)", R"("modules_to_save":["lm_head"])", R"("bias":"all")",
        R"("lora_bias":true)", R"("init_lora_weights":"pissa_niter_4")", R"("fan_in_fan_out":true)",
        R"("trainable_token_indices":[1])", R"("r":0)", R"("rank_pattern":{"x":-1})"})
    EXPECT_THROW(config(key), Error) << key;
  EXPECT_TRUE(mentions(error_of([&] { (void)config(R"("use_dora":true)"); }), "DoRA"));
  EXPECT_TRUE(mentions(
      error_of([&] { (void)lora_config_from_json(R"({"peft_type":"IA3"})", "x"); }), "IA3"));
}

TEST(PeftAdapter, weights_that_do_not_fit_the_config_are_refused) {
  const TempDir dir;
  write_peft_adapter(dir / "out", sample());
  std::ofstream(dir / "out/adapter_config.json") << R"({"r":3,"lora_alpha":4})";
  EXPECT_TRUE(mentions(error_of([&] { (void)read_peft_adapter(dir / "out"); }), "has rank 2"));
  std::filesystem::remove(dir / "out/adapter_model.safetensors");
  EXPECT_THROW(read_peft_adapter(dir / "out"), Error);
}

TEST(GgufAdapter, keeps_each_modules_product_whatever_its_alpha) {
  const TempDir dir;
  GgufAdapter a{"llama", sample()};
  a.adapter.config.use_rslora = true;  // scales 4 / sqrt(2) and 5
  a.adapter.modules[0].name = "blk.0.ffn_up.weight";
  a.adapter.modules[1].name = "blk.0.attn_q.weight";
  write_gguf_adapter(dir / "a.gguf", a);
  const auto r = read_gguf_adapter(GgufFile::open(dir / "a.gguf"));
  EXPECT_EQ(r.architecture, "llama");
  ASSERT_EQ(r.adapter.modules.size(), 2u);
  for (const auto& m : a.adapter.modules) {
    const auto& n = r.adapter.modules[m.name == r.adapter.modules[0].name ? 0 : 1];
    EXPECT_EQ(n.a, m.a);
    for (std::size_t i = 0; i < m.b.size(); ++i)
      EXPECT_NEAR(lora_scale(r.adapter.config, n) * n.b[i],
                  lora_scale(a.adapter.config, m) * m.b[i], 1e-5);
  }
}

TEST(GgufAdapter, a_model_is_not_an_adapter_and_halves_are_refused) {
  const TempDir dir;
  {
    const std::vector<float> a{1, 2};
    GgufWriter out(dir / "a.gguf");
    out.set_string("general.type", "adapter");
    out.set_string("general.architecture", "llama");
    out.set_string("adapter.type", "lora");
    out.set_f32("adapter.lora.alpha", 1);
    out.declare("w.lora_a", {1, 2}, DType::f32);
    out.append("w.lora_a", std::as_bytes(std::span(a)));
    out.finish();
  }
  const auto file = GgufFile::open(dir / "a.gguf");
  EXPECT_TRUE(is_gguf_adapter(file));
  EXPECT_TRUE(mentions(error_of([&] { (void)read_gguf_adapter(file); }), "w lacks its lora_b"));
}

}  // namespace
}  // namespace supersonic::io
