#include "models/quant_mix.h"

#include "core/error.h"

namespace supersonic::models {
namespace {

constexpr QuantMix kMixes[] = {{"q8_0", "q8_0", 7},
                               {"q6_k", "q6_k", 18},
                               {"q5_k_m", "q5_k", 17, "q5_k"},
                               {"q5_k_s", "q5_k", 16},
                               {"q5_1", "q5_1", 9},
                               {"q5_0", "q5_0", 8},
                               {"q4_k_m", "q4_k", 15, "q4_k"},
                               {"q4_k_s", "q4_k", 14},
                               {"q4_1", "q4_1", 3},
                               {"q4_0", "q4_0", 2},
                               {"mxfp4_moe", "mxfp4", 38, "mxfp4"},
                               {"iq4_nl", "iq4_nl", 25},
                               {"iq4_xs", "iq4_xs", 30},
                               {"q3_k_l", "q3_k", 13},
                               {"q3_k_m", "q3_k", 12, "q3_k"},
                               {"q3_k_s", "q3_k", 11},
                               {"q2_k", "q2_k", 10},
                               {"q2_k_s", "q2_k", 21},
                               {"tq2_0", "tq2_0", 37},
                               {"tq1_0", "tq1_0", 36}};

// The layers that the _M mixtures give more bits: the first and the last eighth, and every third
// between.
bool more_bits(std::int64_t layer, std::int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

bool contains(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

struct Rules {
  std::string_view mix, usual;
  std::int64_t layer;
  const MixModel& model;

  bool is(std::string_view name) const { return mix == name; }
  bool grouped() const { return model.heads / model.kv_heads >= 4; }
  bool first_eighth() const { return layer < model.layers / 8; }
  bool iq4() const { return is("iq4_nl") || is("iq4_xs"); }
  bool eight_experts() const { return model.experts == 8; }

  std::string_view attn_v() const {
    std::string_view type = usual;
    if (is("q2_k")) type = grouped() ? "q4_k" : "q3_k";
    if (is("q2_k_s") && grouped()) type = "q4_k";
    if (is("q3_k_m")) type = layer < 2 ? "q5_k" : "q4_k";
    if (is("q3_k_l") || (iq4() && grouped()) || (is("q4_k_s") && layer < 4)) type = "q5_k";
    if ((is("q4_k_m") || is("q5_k_m")) && more_bits(layer, model.layers)) type = "q6_k";
    // Large models whose heads share keys and values: attn_v is small there, and more bits are
    // cheap.
    const bool seventy_billion = model.layers == 80 && model.heads != model.kv_heads;
    if (seventy_billion && (type == "q3_k" || type == "q4_k")) type = "q5_k";
    return eight_experts() ? "q8_0" : type;
  }

  std::string_view ffn_down() const {
    if (is("q2_k")) return "q3_k";
    if (is("q3_k_m")) return layer < model.layers / 16 ? "q5_k" : "q4_k";
    if (is("q3_k_l")) return "q5_k";
    if (is("q2_k_s") && first_eighth()) return "q4_k";
    if ((iq4() || is("q4_k_s")) && first_eighth()) return "q5_k";
    if ((is("q4_k_m") || is("q5_k_m")) && more_bits(layer, model.layers)) return "q6_k";
    return usual;
  }

  std::string_view attn_output() const {
    if (eight_experts()) {
      for (std::string_view name :
           {"q2_k", "q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m", "iq4_nl", "iq4_xs"})
        if (is(name)) return "q5_k";
      return usual;
    }
    return is("q2_k") ? "q3_k" : is("q3_k_m") ? "q4_k" : is("q3_k_l") ? "q5_k" : usual;
  }
};

}  // namespace

const QuantMix* find_mix(std::string_view name) {
  for (const QuantMix& mix : kMixes)
    if (mix.name == name || (!mix.alias.empty() && mix.alias == name)) return &mix;
  return nullptr;
}

std::span<const QuantMix> all_mixes() { return kMixes; }

std::vector<std::string> mix_names() {
  std::vector<std::string> names;
  for (const QuantMix& mix : kMixes) {
    if (!mix.alias.empty())
      names.emplace_back(mix.alias);
    else
      names.emplace_back(mix.name);
  }
  return names;
}

const QuantMix* plain_mix(const Format& format) {
  for (const QuantMix& mix : kMixes)
    if (mix.name == format.name || mix.alias == format.name) return &mix;
  return nullptr;
}

const Format* mixed_format(const QuantMix& mix, std::string_view name, std::int64_t layer,
                           std::int64_t cols, const MixModel& model) {
  const Format& usual = *find_format(mix.format);
  const Rules rules{mix.name, mix.format, layer, model};
  std::string_view type = mix.format;
  if (rules.is("mxfp4_moe")) {  // the experts' matrices alone
    type = contains(name, "_exps.weight") && model.experts > 1 ? "mxfp4" : "q8_0";
  } else if (name == "output.weight" || (name == "token_embd.weight" && model.tied)) {
    type = cols % usual.block || mix.format == "q8_0" ? "q8_0" : "q6_k";
  } else if (name == "token_embd.weight") {
    if (rules.is("tq1_0") || rules.is("tq2_0")) type = "q4_k";
  } else if (contains(name, "attn_qkv.weight") || contains(name, "attn_v.weight")) {
    type = rules.attn_v();
  } else if (contains(name, "attn_k.weight")) {
    if (rules.eight_experts()) type = "q8_0";
  } else if (contains(name, "attn_output.weight")) {
    type = rules.attn_output();
  } else if (contains(name, "ffn_down")) {
    type = rules.ffn_down();
  }
  return writable_for(*find_format(type), cols);
}

bool is_quantized_by_mixes(std::string_view name) { return !contains(name, "ffn_gate_inp.weight"); }

}  // namespace supersonic::models
