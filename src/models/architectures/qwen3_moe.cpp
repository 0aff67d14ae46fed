// Qwen3's mixtures of experts: Qwen3's attention, many small experts, in some models not in every
// layer.
#include <algorithm>

#include "models/architectures/mixture.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(qwen3_moe) {
  Architecture a;
  a.hf_class = "Qwen3MoeForCausalLM", a.model_type = "qwen3_moe", a.gguf = "qwen3moe";
  a.defaults = {.max_position = 32768, .kv_heads = false};
  a.describe = [](ModelConfig& c) { c.qk_norm = QkNorm::head; };
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
    c.experts.count = f.integer("num_experts", 1, 65536).value_or(128);
    c.experts.used = f.integer("num_experts_per_tok", 1, 64).value_or(8);
    c.experts.width = f.integer("moe_intermediate_size", 1, std::int64_t{1} << 24).value_or(768);
    c.experts.renormalise = f.boolean("norm_topk_prob").value_or(false);
    const auto step = f.integer("decoder_sparse_step", 1, 65536).value_or(1);
    const auto dense = f.integers("mlp_only_layers", 0, 65536);
    std::vector<std::uint8_t> layers;
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
      layers.push_back((i + 1) % step != 0 ||
                       std::find(dense.begin(), dense.end(), i) != dense.end());
    if (std::find(layers.begin(), layers.end(), 1) != layers.end())
      c.experts.dense_layers = std::move(layers);
    if (f.boolean("use_sliding_window").value_or(false))
      set_sliding_layers(
          c, f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0),
          std::vector<std::uint8_t>(static_cast<std::size_t>(c.num_hidden_layers), 1));
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    j.set("attention_bias", c.qkv_bias);
    j.set("num_experts", c.experts.count);
    j.set("num_experts_per_tok", c.experts.used);
    j.set("moe_intermediate_size", c.experts.width);
    j.set("norm_topk_prob", c.experts.renormalise);
    j.set("decoder_sparse_step", 1);
    auto dense = JsonTree::array();
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
      if (!c.has_experts(i)) dense.push_back(i);
    j.set("mlp_only_layers", std::move(dense));
    j.set("use_sliding_window", c.sliding_window > 0);
    if (c.sliding_window > 0) j.set("sliding_window", c.sliding_window);
  };
  a.from_gguf = experts_from_gguf;
  a.to_gguf = experts_to_gguf;
  return a;
}

}  // namespace supersonic::io
