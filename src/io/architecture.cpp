// What architectures have in common: the usual names of tensors, and looking one up.
#include "io/architecture.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace supersonic::io {
namespace {

constexpr RoleName kNames[] = {
    {Role::attention_norm, "input_layernorm", "attn_norm"},
    {Role::attention_post_norm, "post_attention_layernorm", "post_attention_norm"},
    {Role::q, "self_attn.q_proj", "attn_q"},
    {Role::k, "self_attn.k_proj", "attn_k"},
    {Role::v, "self_attn.v_proj", "attn_v"},
    {Role::qkv, "self_attn.qkv_proj", "attn_qkv"},
    {Role::q_norm, "self_attn.q_norm", "attn_q_norm"},
    {Role::k_norm, "self_attn.k_norm", "attn_k_norm"},
    {Role::sinks, "self_attn.sinks", "attn_sinks"},
    {Role::o, "self_attn.o_proj", "attn_output"},
    {Role::mlp_norm, "post_attention_layernorm", "ffn_norm"},
    {Role::mlp_post_norm, "post_feedforward_layernorm", "post_ffw_norm"},
    {Role::gate, "mlp.gate_proj", "ffn_gate"},
    {Role::up, "mlp.up_proj", "ffn_up"},
    {Role::gate_up, "mlp.gate_up_proj", "ffn_up"},
    {Role::down, "mlp.down_proj", "ffn_down"},
    {Role::router, "mlp.gate", "ffn_gate_inp"},
    {Role::expert_gate, "mlp.experts.*.gate_proj", "ffn_gate_exps"},
    {Role::expert_up, "mlp.experts.*.up_proj", "ffn_up_exps"},
    {Role::expert_down, "mlp.experts.*.down_proj", "ffn_down_exps"},
};

std::int64_t count(std::int64_t layers, auto&& holds) {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < layers; ++i) n += holds(i);
  return n;
}

std::string of_layers(std::int64_t some, std::int64_t all) {
  return some == all ? "" : fmt::format(" in {} of {} layers", some, all);
}

}  // namespace

const RoleName& Architecture::name_of(Role role) const {
  for (const RoleName& n : names)
    if (n.role == role) return n;
  return *std::find_if(std::begin(kNames), std::end(kNames),
                       [&](const RoleName& n) { return n.role == role; });
}

const Architecture* find_architecture(std::string_view name) {
  for (const Architecture* a : all_architectures())
    if (a->name == name) return a;
  return nullptr;
}

const Architecture& architecture_of(const ModelConfig& config) {
  const Architecture* a = find_architecture(config.family);
  CHECK(a, "no architecture is called '{}'", config.family);
  return *a;
}

std::string special_features(const ModelConfig& c) {
  std::vector<std::string> all;
  const auto say = [&](bool holds, std::string text) {
    if (holds) all.push_back(std::move(text));
  };
  say(!c.text_part_of.empty(), fmt::format("the text part of a {}", c.text_part_of));
  const std::int64_t layers = c.num_hidden_layers;
  say(c.norms == NormPlace::after, "norms after the blocks");
  say(c.norms == NormPlace::around, "norms before and after the blocks");
  say(c.qk_norm == QkNorm::head, "queries and keys normalised");
  say(c.qk_norm == QkNorm::projection, "queries and keys normalised over all heads");
  say(c.gate == Gate::gelu_tanh, "GELU");
  say(c.gate == Gate::clamped_silu, "clamped SwiGLU");
  say(c.fused, "q, k, v and gate, up in one matrix each");
  say(c.qkv_bias, c.o_bias ? "biases in attention" : "biases on q, k, v");
  say(c.sliding_window > 0,
      fmt::format("window {}{}", c.sliding_window,
                  of_layers(count(layers, [&](auto i) { return c.slides(i); }), layers)));
  say(c.local_rope_theta > 0,
      fmt::format("rope theta {:.0f} inside the window", c.local_rope_theta));
  const std::int64_t still = count(layers, [&](auto i) { return !c.rotates(i); });
  say(still > 0, fmt::format("no positions{}", of_layers(still, layers)));
  say(c.rotary() != c.head_dim, fmt::format("{} of {} dimensions turn", c.rotary(), c.head_dim));
  say(c.attention_sinks, "attention sinks");
  say(c.attention_cap > 0, fmt::format("scores capped at {}", c.attention_cap));
  say(c.logit_cap > 0, fmt::format("logits capped at {}", c.logit_cap));
  say(c.embedding_scale != 1, fmt::format("embedding times {:.4g}", c.embedding_scale));
  say(c.residual_scale != 1, fmt::format("blocks times {:.4g}", c.residual_scale));
  say(c.attention_scale > 0, fmt::format("scores times {:.4g}", c.attention_scale));
  say(c.logit_scale != 1, fmt::format("logits times {:.4g}", c.logit_scale));
  say(c.experts.count > 0,
      fmt::format("{} of {} experts of {}{}", c.experts.used, c.experts.count, c.experts.width,
                  of_layers(count(layers, [&](auto i) { return c.has_experts(i); }), layers)));
  return fmt::format("{}", fmt::join(all, ", "));
}

}  // namespace supersonic::io
