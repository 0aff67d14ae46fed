// SmolLM3: a Llama in which every fourth layer does not turn queries and keys (NoPE).
#include "core/error.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

namespace {

constexpr std::int64_t kInterval = 4;  // llama.cpp knows no other

void set_unrotated(ModelConfig& c, std::int64_t interval) {
  c.unrotated_layers.clear();
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
    c.unrotated_layers.push_back((i + 1) % interval == 0);
}

void read_rotated_layers(ModelConfig& c, const JsonFields& f) {
  if (!f.has("no_rope_layers")) {
    set_unrotated(c, f.integer("no_rope_layer_interval", 1, 65536).value_or(kInterval));
    return;
  }
  const auto rotates = f.integers("no_rope_layers", 0, 1);  // 1: turns, whatever the name says
  if (static_cast<std::int64_t>(rotates.size()) < c.num_hidden_layers)
    f.bad("no_rope_layers", fmt::format("a list of {} times 0 or 1", c.num_hidden_layers));
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
    c.unrotated_layers.push_back(rotates[static_cast<std::size_t>(i)] == 0);
}

}  // namespace

ARCHITECTURE(smollm3) {
  Architecture a;
  a.hf_class = "SmolLM3ForCausalLM", a.model_type = "smollm3", a.gguf = "smollm3";
  a.gguf_interleaved = true;
  a.defaults = {.max_position = 32768, .rope_theta = 2000000.0, .kv_heads = false, .tied = true};
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
    c.mlp_bias = f.boolean("mlp_bias").value_or(false);
    read_rotated_layers(c, f);
    if (!f.boolean("use_sliding_window").value_or(false)) return;
    const auto window = f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0);
    read_sliding_layers(c, f, window, [&](std::int64_t layer) { return !c.rotates(layer); });
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    CHECK(c.qkv_bias == c.o_bias,
          "{} has no class in transformers with just these biases; save as GGUF instead",
          c.architecture);
    j.set("attention_bias", c.qkv_bias);
    j.set("mlp_bias", c.mlp_bias);
    auto rotates = JsonTree::array();
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) rotates.push_back(c.rotates(i) ? 1 : 0);
    j.set("no_rope_layers", std::move(rotates));
    j.set("use_sliding_window", c.sliding_window > 0);
    if (c.sliding_window == 0) return;
    j.set("sliding_window", c.sliding_window);
    write_layer_types(c, j);
  };
  a.from_gguf = [](ModelConfig& c, const GgufFile&, const std::string&) {
    set_unrotated(c, kInterval);
  };
  a.to_gguf = [](const ModelConfig& c, GgufWriter&, const std::string&) {
    ModelConfig usual = c;
    set_unrotated(usual, kInterval);
    CHECK(usual.unrotated_layers == c.unrotated_layers,
          "a GGUF file cannot say which layers of a SmolLM3 do not turn, but that it is every "
          "fourth, which is not so here; save as a folder instead");
  };
  return a;
}

}  // namespace supersonic::io
