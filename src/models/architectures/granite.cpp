// Granite 3: a Llama whose embedding, blocks, scores and logits are multiplied by stated numbers.
#include "core/error.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(granite) {
  Architecture a;
  a.hf_class = "GraniteForCausalLM", a.model_type = "granite", a.gguf = "granite";
  a.gguf_interleaved = true;
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
    c.mlp_bias = f.boolean("mlp_bias").value_or(false);
    const auto factor = [&](const char* key) {
      const double x = f.real(key, 0, 1e9).value_or(1.0);
      if (x == 0) f.bad(key, "a number greater than 0");
      return x;
    };
    c.embedding_scale = factor("embedding_multiplier");
    c.residual_scale = factor("residual_multiplier");
    c.attention_scale = factor("attention_multiplier");
    c.logit_scale = 1 / factor("logits_scaling");
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    CHECK(c.qkv_bias == c.o_bias,
          "{} has no class in transformers with just these biases; save as GGUF instead",
          c.architecture);
    j.set("attention_bias", c.qkv_bias);
    j.set("mlp_bias", c.mlp_bias);
    j.set("embedding_multiplier", c.embedding_scale);
    j.set("residual_multiplier", c.residual_scale);
    j.set("attention_multiplier", c.attention_scale);
    j.set("logits_scaling", 1 / c.logit_scale);
  };
  a.from_gguf = [](ModelConfig& c, const GgufFile& file, const std::string& prefix) {
    CHECK_FILE(file.get_bool(prefix + "rope.scaling.finetuned", true),
               "{}: this Granite has no rotation, which this program cannot run", file.path());
    const auto factor = [&](const char* key, double otherwise) {
      const double x = file.get_float(prefix + key, 0.0);
      return x == 0 ? otherwise : x;  // 0 means that the file does not say
    };
    c.embedding_scale = factor("embedding_scale", 1);
    c.residual_scale = factor("residual_scale", 1);
    c.attention_scale = factor("attention.scale", 0);
    c.logit_scale = 1 / factor("logit_scale", 1);
  };
  a.to_gguf = [](const ModelConfig& c, GgufWriter& out, const std::string& prefix) {
    const auto set = [&](const char* key, double x) {
      out.set_f32(prefix + key, static_cast<float>(x));
    };
    set("embedding_scale", c.embedding_scale);
    set("residual_scale", c.residual_scale);
    set("attention.scale", c.attention_scale);
    set("logit_scale", 1 / c.logit_scale);
  };
  return a;
}

}  // namespace supersonic::io
