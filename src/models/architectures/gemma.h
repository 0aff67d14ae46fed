// What Gemma 2 and Gemma 3 have in common.
#pragma once
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

inline std::vector<RoleName> gemma_names() {
  return {{Role::mlp_norm, "pre_feedforward_layernorm", "ffn_norm"}};
}

inline void describe_gemma(ModelConfig& c) {
  c.norms = NormPlace::around;
  c.gate = Gate::gelu_tanh;
}

// attention_scale of query_pre_attn_scalar: 0 where it is the head size, as usual.
inline double gemma_attention_scale(double scalar, std::int64_t head_dim) {
  return scalar == static_cast<double>(head_dim) ? 0 : 1 / std::sqrt(scalar);
}

inline void read_gemma(ModelConfig& c, const JsonFields& f) {
  for (const char* key : {"hidden_activation", "hidden_act"})
    require_activation(
        f, key,
        {"gelu_pytorch_tanh", "gelu"});  // "gelu" stands in old files, which mean the other too
  if (f.string("hidden_activation").value_or("gelu_pytorch_tanh") == "gelu")
    f.bad("hidden_activation", "gelu_pytorch_tanh");
  c.embedding_scale = std::sqrt(static_cast<double>(c.hidden_size));
  c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
  const double scalar = f.real("query_pre_attn_scalar", 0, 1e9).value_or(256);
  if (scalar == 0) f.bad("query_pre_attn_scalar", "a number greater than 0");
  c.attention_scale = gemma_attention_scale(scalar, c.head_dim);
  c.logit_cap = f.real("final_logit_softcapping", 0, 1e6).value_or(0);
}

inline void write_gemma(const ModelConfig& c, JsonTree& j) {
  j.set("hidden_activation", "gelu_pytorch_tanh");
  j.set("attention_bias", c.qkv_bias);
  const double scalar = c.attention_scale > 0 ? 1 / (c.attention_scale * c.attention_scale)
                                              : static_cast<double>(c.head_dim);
  const double whole = std::round(scalar);  // as which transformers wants it
  const bool is_whole = whole >= 1 && whole <= 1e9 && std::abs(scalar - whole) <= 1e-9 * whole;
  j.set("query_pre_attn_scalar",
        is_whole ? JsonTree(static_cast<std::int64_t>(whole)) : JsonTree(std::min(scalar, 1e9)));
  j.set("final_logit_softcapping", c.logit_cap > 0 ? JsonTree(c.logit_cap) : nullptr);
}

// The largest model of each generation divides scores by the square root of hidden_size / heads,
// the others by that of the head size. GGUF files do not say which; llama.cpp looks at the number
// of layers.
inline double gemma_gguf_scale(const ModelConfig& c, std::int64_t layers_of_largest) {
  if (c.num_hidden_layers != layers_of_largest) return 0;
  return gemma_attention_scale(static_cast<double>(c.hidden_size / c.num_attention_heads),
                               c.head_dim);
}

inline void gemma_from_gguf(ModelConfig& c, const GgufFile& file, const std::string& prefix,
                            std::int64_t layers_of_largest) {
  c.embedding_scale = std::sqrt(static_cast<double>(c.hidden_size));
  c.attention_scale = gemma_gguf_scale(c, layers_of_largest);
  c.logit_cap = file.get_float(prefix + "final_logit_softcapping", 0.0);
}

inline void gemma_to_gguf(const ModelConfig& c, GgufWriter& out, const std::string& prefix,
                          std::int64_t layers_of_largest) {
  CHECK(
      std::abs(c.attention_scale - gemma_gguf_scale(c, layers_of_largest)) < 1e-9,
      "a GGUF file of {} cannot say that scores are multiplied by {:.6g} (query_pre_attn_scalar); "
      "save as a folder instead",
      c.architecture, c.attention_scale);
  if (c.head_dim * c.num_attention_heads == c.hidden_size)  // their loaders expect it always
    for (const char* key : {"attention.key_length", "attention.value_length"})
      out.set_u32(prefix + key, static_cast<std::uint32_t>(c.head_dim));
  if (c.logit_cap > 0)
    out.set_f32(prefix + "final_logit_softcapping", static_cast<float>(c.logit_cap));
}

}  // namespace supersonic::io
