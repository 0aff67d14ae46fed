// gpt-oss: biases in attention, a sink in each head, every second layer a window, a mixture of
// experts with a clamped activation. Folders keep the experts' matrices transposed and gate and up
// interleaved (models/fused_experts.h).

#include "io/json_fields.h"
#include "io/json_tree.h"
#include "models/architectures/mixture.h"

namespace supersonic::io {
namespace {

constexpr std::int64_t kPeriod = 2;

void require_number(const JsonFields& f, const char* key, double expected) {
  if (f.real(key, -1e9, 1e9).value_or(expected) != expected)
    f.bad(key, fmt::format("{}", expected));
}

}  // namespace

ARCHITECTURE(gpt_oss) {
  Architecture a;
  a.hf_class = "GptOssForCausalLM", a.model_type = "gpt_oss", a.gguf = "gpt-oss";
  a.fused_experts = true;
  a.defaults = {.max_position = 131072,
                .rope_theta = 150000.0,
                .rms_norm_eps = 1e-5,
                .head_dim = 64,
                .kv_heads = false};
  a.names = {{Role::mlp_norm, "post_attention_layernorm", "post_attention_norm"},
             {Role::router, "mlp.router", "ffn_gate_inp"},
             {Role::expert_gate, "mlp.experts.gate_up_proj", "ffn_gate_exps"},
             {Role::expert_up, "mlp.experts.gate_up_proj", "ffn_up_exps"},
             {Role::expert_down, "mlp.experts.down_proj", "ffn_down_exps"}};
  a.describe = [](ModelConfig& c) {
    c.gate = Gate::clamped_silu;
    c.attention_sinks = true;
    c.qkv_bias = c.o_bias = true;
  };
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    require_number(f, "swiglu_alpha", 1.702);
    require_number(f, "swiglu_limit", 7.0);
    if (!f.boolean("attention_bias").value_or(true)) f.bad("attention_bias", "true");
    if (!f.has("rope_scaling") && !f.has("rope_parameters")) {  // transformers' default
      c.rope_scaling.kind = RopeScaling::Kind::yarn;
      c.rope_scaling.factor = 32, c.rope_scaling.original_max_position = 4096;
      c.rope_scaling.truncate = false;
    }
    c.experts.count = f.integer("num_local_experts", 1, 65536).value_or(128);
    c.experts.used =
        f.integer(f.has("num_experts_per_tok") ? "num_experts_per_tok" : "experts_per_token", 1, 64)
            .value_or(4);
    c.experts.width = c.intermediate_size;
    const auto window = f.value().contains("sliding_window")
                            ? f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0)
                            : 128;
    read_sliding_layers(c, f, window,
                        [](std::int64_t layer) { return (layer + 1) % kPeriod != 0; });
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    j.set("hidden_act", "silu");
    j.set("attention_bias", true);
    j.set("num_local_experts", c.experts.count);
    j.set("num_experts_per_tok", c.experts.used);
    j.set("swiglu_limit", 7.0);
    if (c.rope_scaling.kind == RopeScaling::Kind::none)
      j.set("rope_scaling", JsonTree::object({{"rope_type", "default"}}));
    j.set("sliding_window", c.sliding_window ? JsonTree(c.sliding_window) : nullptr);
    write_layer_types(c, j);
  };
  a.from_gguf = [](ModelConfig& c, const GgufFile& file, const std::string& prefix) {
    experts_from_gguf(c, file, prefix);
    c.rope_scaling.truncate = false;  // which GGUF files cannot say
    sliding_pattern_from_gguf(c, file, prefix, kPeriod);
  };
  a.to_gguf = [](const ModelConfig& c, GgufWriter& out, const std::string& prefix) {
    experts_to_gguf(c, out, prefix);
    sliding_pattern_to_gguf(c, out, prefix, kPeriod);
  };
  return a;
}

}  // namespace supersonic::io
