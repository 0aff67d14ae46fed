// The mixtures' rules against what llama-quantize chose (tests/oracle/record_mixes.py), matrix by
// matrix: models of few and many layers, with and without heads that share keys, with rows that
// blocks do not divide, and mixtures of experts.
#include "models/quant_mix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace supersonic::models {
namespace {

using Json = nlohmann::json;

Json golden() {
  std::ifstream in(SUPERSONIC_GOLDEN_DIR "/io/mixes.json");
  EXPECT_TRUE(in) << "run tests/oracle/record_mixes.py";
  return Json::parse(in);
}

// "q6_K*2 q4_K" -> {"q6_k", "q6_k", "q4_k"}
std::vector<std::string> expand(const std::string& runs) {
  std::vector<std::string> types;
  std::istringstream words(runs);
  for (std::string word; words >> word;) {
    const std::size_t star = word.find('*');
    std::string type = word.substr(0, star);
    std::transform(type.begin(), type.end(), type.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    types.insert(types.end(), star == std::string::npos ? 1 : std::stoul(word.substr(star + 1)),
                 type);
  }
  return types;
}

std::string chosen(const QuantMix& mix, const std::string& name, std::int64_t layer,
                   const Json& m) {
  const MixModel model{.layers = m["layers"],
                       .heads = m["heads"],
                       .kv_heads = m["kv_heads"],
                       .experts = m["experts"],
                       .tied = m["tied"]};
  const Format* f = mixed_format(mix, name, layer, m["width"], model);
  return f ? std::string(f->name) : "f16";
}

TEST(QuantMix, EveryMatrixHasTheTypeThatLlamaQuantizeChooses) {
  std::size_t compared = 0;
  const Json models = golden();
  for (const auto& [model_name, m] : models.items()) {
    for (const auto& [mix_name, matrices] : m["types"].items()) {
      const QuantMix* mix = find_mix(mix_name);
      ASSERT_TRUE(mix) << mix_name;
      for (const auto& [matrix, runs] : matrices.items()) {
        const auto types = expand(runs);
        const bool in_layers = types.size() > 1 || m["layers"] == 1;
        if (!is_quantized_by_mixes(matrix + ".weight")) continue;
        for (std::size_t i = 0; i < types.size(); ++i) {
          const auto layer = in_layers ? static_cast<std::int64_t>(i) : -1;
          const std::string name =
              (in_layers ? "blk." + std::to_string(i) + "." : "") + matrix + ".weight";
          EXPECT_EQ(chosen(*mix, name, layer, m), types[i])
              << model_name << " " << mix_name << " " << name;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 25000u);
}

TEST(QuantMix, RoutersOfExpertsAreNotQuantized) {
  const Json experts = golden()["eight_experts"]["types"];
  for (const auto& [mix, matrices] : experts.items())
    EXPECT_EQ(matrices["ffn_gate_inp"], "f16*16") << mix;
  EXPECT_FALSE(is_quantized_by_mixes("blk.3.ffn_gate_inp.weight"));
  EXPECT_TRUE(is_quantized_by_mixes("blk.3.ffn_gate_exps.weight"));
}

TEST(QuantMix, ShortNamesMeanTheMediumMixtures) {
  for (std::string name : {"q3_k", "q4_k", "q5_k"})
    EXPECT_EQ(find_mix(name), find_mix(name + "_m"));
  EXPECT_EQ(find_mix("iq2_xs"), nullptr);
  EXPECT_EQ(find_mix("f16"), nullptr);
}

// llama.h's enum llama_ftype.
TEST(QuantMix, FileTypesAreLlamaCpps) {
  const std::pair<const char*, std::uint32_t> numbers[] = {
      {"q4_0", 2},    {"q4_1", 3},    {"q8_0", 7},    {"q5_0", 8},    {"q5_1", 9},
      {"q2_k", 10},   {"q3_k_s", 11}, {"q3_k_m", 12}, {"q3_k_l", 13}, {"q4_k_s", 14},
      {"q4_k_m", 15}, {"q5_k_s", 16}, {"q5_k_m", 17}, {"q6_k", 18},   {"iq4_nl", 25},
      {"iq4_xs", 30}, {"q2_k_s", 21}, {"tq1_0", 36},  {"tq2_0", 37},  {"mxfp4_moe", 38}};
  for (const auto& [name, number] : numbers) EXPECT_EQ(find_mix(name)->file_type, number) << name;
  EXPECT_EQ(mix_names().size(), std::size(numbers));
}

TEST(QuantMix, EveryFormatThatGgufWritesHasAMixtureOfItsName) {
  for (const Format* f : all_formats()) {
    if (f->ggml_type < 0 || !f->encode) continue;
    ASSERT_NE(plain_mix(*f), nullptr) << f->name;
    EXPECT_EQ(plain_mix(*f)->format, f->name);
  }
  EXPECT_EQ(plain_mix(*find_format("iq2_s")), nullptr);
}

}  // namespace
}  // namespace supersonic::models
