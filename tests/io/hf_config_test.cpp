// The JSON files of a Hugging Face folder: old and new spellings give the same model, lies and
// unknown things are refused.
#include "io/hf_config.h"

#include <fstream>

#include "io/json.h"
#include "io_test_util.h"

namespace supersonic::io {
namespace {

using io_test::error_of;
using io_test::mentions;
using io_test::TempDir;

// A small Llama; `more` is further fields, which JSON lets stand last.
std::string llama(const std::string& more = "", const std::string& heads = "4") {
  return R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":128,"num_hidden_layers":3,)"
         R"("num_attention_heads":)" +
         heads + R"(,"vocab_size":300)" + (more.empty() ? "" : "," + more) + "}";
}
std::string qwen(const std::string& more) {
  return R"({"architectures":["Qwen2ForCausalLM"],"hidden_size":64,"intermediate_size":128,"num_hidden_layers":3,)"
         R"("num_attention_heads":4,"num_key_value_heads":2,"vocab_size":300,)" +
         more + "}";
}
ModelConfig parse(const std::string& text) { return model_config_from_json(text, "config.json"); }
std::string error(const std::string& text) {
  return error_of([&] { (void)parse(text); });
}

TEST(HfConfig, fills_defaults_as_transformers_does) {
  const ModelConfig c = parse(llama());
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.max_position_embeddings, 2048);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_TRUE(c.eos_token_ids.empty());
}

TEST(HfConfig, old_and_new_rope_spellings_agree) {
  const std::string scaling =
      R"("factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":1024)";
  const ModelConfig old_way =
      parse(llama(R"("rope_theta":500000.0,"rope_scaling":{"type":"llama3",)" + scaling + "}"));
  const ModelConfig new_way = parse(
      llama(R"("rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,)" + scaling + "}"));
  for (const auto* c : {&old_way, &new_way}) {
    EXPECT_EQ(c->rope_theta, 500000.0);
    EXPECT_EQ(name_of(c->rope_scaling.kind), "llama3");
    EXPECT_EQ(c->rope_scaling.factor, 8.0);
    EXPECT_EQ(c->rope_scaling.original_max_position, 1024);
  }
  EXPECT_EQ(name_of(parse(llama(R"("rope_scaling":null)")).rope_scaling.kind), "default");
  EXPECT_TRUE(mentions(error(llama(R"("rope_scaling":{"rope_type":"proportional","factor":2})")),
                       "rope_scaling.rope_type"));
  EXPECT_TRUE(mentions(error(llama(R"("rope_scaling":{"rope_type":"longrope","factor":2})")),
                       "rope_scaling.short_factor is missing, a list of 8 positive numbers"));
  EXPECT_TRUE(mentions(error(llama(R"("rope_scaling":{"rope_type":"linear"})")),
                       "rope_scaling.factor is missing"));
  EXPECT_TRUE(mentions(error(llama(R"("partial_rotary_factor":0.5)")), "partial_rotary_factor"));
}

TEST(HfConfig, yarn_attention_follows_mscale) {
  // transformers: (0.1 m ln(factor) + 1) / (0.1 m_all ln(factor) + 1)
  const auto c = parse(llama(
      R"("rope_scaling":{"rope_type":"yarn","factor":40,"mscale":1.0,"mscale_all_dim":0.707})"));
  EXPECT_NEAR(c.rope_scaling.attention_factor, 1.3688879454 / 1.2608037774, 1e-9);
}

TEST(HfConfig, sliding_windows_are_per_layer) {
  EXPECT_EQ(parse(qwen(R"("use_sliding_window":false,"sliding_window":32)")).sliding_window, 0);
  const auto c =
      parse(qwen(R"("use_sliding_window":true,"sliding_window":32,"max_window_layers":2)"));
  EXPECT_FALSE(c.slides(0));
  EXPECT_FALSE(c.slides(1));
  EXPECT_TRUE(c.slides(2));
  EXPECT_EQ(parse(qwen(R"("use_sliding_window":true,"sliding_window":32)")).sliding_window, 0)
      << "28 layers come first";
  const auto typed = parse(qwen(
      R"("use_sliding_window":true,"sliding_window":32,"layer_types":["sliding_attention","full_attention","full_attention"])"));
  EXPECT_TRUE(typed.slides(0));
  EXPECT_FALSE(typed.slides(2));
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_FALSE(c.o_bias);
}

TEST(HfConfig, refuses_with_the_field_and_the_remedy) {
  EXPECT_TRUE(mentions(error(R"({"architectures":["GPT2LMHeadModel"]})"),
                       "GPT2LMHeadModel; this program knows Gemma2ForCausalLM, Gemma3ForCausalLM, "));
  EXPECT_TRUE(mentions(error("{}"), "not named"));
  EXPECT_TRUE(mentions(error(llama("", "0")), "num_attention_heads is 0"));
  EXPECT_TRUE(mentions(error(llama("", "5")), "a multiple of num_attention_heads 5"));
  EXPECT_TRUE(mentions(error(llama("", "\"4\"")), "num_attention_heads is \"4\""));
  EXPECT_TRUE(mentions(error(llama(R"("num_key_value_heads":3)")),
                       "not a multiple of num_key_value_heads"));
  EXPECT_TRUE(
      mentions(error(llama(R"("num_key_value_heads":8)")), "num_key_value_heads is 8, 1 to 4"));
  EXPECT_TRUE(mentions(error(llama(R"("head_dim":15)")), "an even number"));
  EXPECT_TRUE(mentions(error(llama(R"("eos_token_id":300)")), "token id is 300"));
  EXPECT_TRUE(mentions(error(llama(R"("hidden_act":"gelu")")), "hidden_act is \"gelu\""));
  EXPECT_TRUE(mentions(error(llama(R"("quantization_config":{"quant_method":"gptq"})")),
                       "quantized with gptq"));
  EXPECT_TRUE(mentions(error(llama(R"("vocab_size":300)")), "\"vocab_size\" stands twice"));
  EXPECT_TRUE(mentions(error("{\n  \"a\": nope}"), "config.json:2:9"));
  EXPECT_TRUE(mentions(error(std::string(100, '[')), "deeper than 32"));
}

TEST(HfConfig, what_is_written_reads_back) {
  for (
      const auto& text :
      {llama(
           R"("rope_theta":500000.0,"eos_token_id":[1,2],"bos_token_id":0,"attention_bias":true,"torch_dtype":"float16",)"
           R"("rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
           R"("original_max_position_embeddings":1024})"),
       qwen(
           R"("use_sliding_window":true,"sliding_window":32,"max_window_layers":1,"tie_word_embeddings":true)")}) {
    const ModelConfig c = parse(text);
    const std::string once = to_config_json(c);
    EXPECT_EQ(to_config_json(parse(once)), once);
    EXPECT_EQ(parse(once).eos_token_ids, c.eos_token_ids);
    EXPECT_EQ(parse(once).slides(0), c.slides(0));
    EXPECT_EQ(parse(once).slides(1), c.slides(1));
  }
}

TEST(HfConfig, a_folder_takes_its_end_tokens_from_the_generation_config) {
  const TempDir dir;
  std::ofstream(dir / "config.json") << llama(R"("eos_token_id":1)");
  EXPECT_EQ(read_model_config(dir.path()).eos_token_ids, (std::vector<std::int64_t>{1}));
  std::ofstream(dir / "generation_config.json")
      << R"({"eos_token_id":[1,7],"temperature":0.6,"top_k":20})";
  EXPECT_EQ(read_model_config(dir.path()).eos_token_ids, (std::vector<std::int64_t>{1, 7}));
  EXPECT_EQ(read_generation_config(dir.path()).temperature, 0.6);
  std::ofstream(dir / "generation_config.json") << R"({"temperature":"hot"})";
  EXPECT_TRUE(mentions(error_of([&] { (void)read_generation_config(dir.path()); }),
                       "temperature is \"hot\""));
}

TEST(HfConfig, tokenizer_config_takes_both_token_and_both_template_forms) {
  const TempDir dir;
  std::ofstream(dir / "tokenizer_config.json")
      << R"({"bos_token":{"content":"<s>","lstrip":false},"eos_token":"</s>","pad_token":null,"add_bos_token":true,)"
         R"("chat_template":[{"name":"default","template":"A"},{"name":"tool_use","template":"B"}]})";
  auto c = read_tokenizer_config(dir.path());
  EXPECT_EQ(c.bos_token, "<s>");
  EXPECT_EQ(c.eos_token, "</s>");
  EXPECT_FALSE(c.pad_token.has_value());
  ASSERT_EQ(c.chat_templates.size(), 2u);
  std::ofstream(dir / "chat_template.jinja") << "C";
  c = read_tokenizer_config(dir.path());
  EXPECT_EQ(c.chat_templates[0], (std::pair<std::string, std::string>{"default", "C"}));
  EXPECT_EQ(c.chat_templates[1].first, "tool_use");
}

}  // namespace
}  // namespace supersonic::io
