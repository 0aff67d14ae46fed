// Llama 2 and 3, SmolLM2 and their many relatives. GGUF files of Mistral and Mixtral have this
// architecture's name too, and are told apart here.
#include "core/error.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(llama) {
  Architecture a;
  a.hf_class = "LlamaForCausalLM", a.model_type = "llama", a.gguf = "llama";
  a.gguf_interleaved = true;
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
    c.mlp_bias = f.boolean("mlp_bias").value_or(false);
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    CHECK(c.qkv_bias == c.o_bias,
          "{} has no class in transformers with just these biases; save as GGUF instead",
          c.architecture);
    j.set("attention_bias", c.qkv_bias);
    j.set("mlp_bias", c.mlp_bias);
  };
  a.from_gguf = [](ModelConfig& c, const GgufFile& file, const std::string& prefix) {
    c.experts.count = file.get_i64(prefix + "expert_count", 0);
    if (c.experts.count > 0) {
      c.family = "mixtral";
      c.experts.used = file.get_i64(prefix + "expert_used_count");
      c.experts.width = c.intermediate_size;
    } else if (c.sliding_window > 0) {
      c.family =
          "mistral";  // transformers' Llama has no window; its Mistral is the same model with one
    }
  };
  return a;
}

}  // namespace supersonic::io
