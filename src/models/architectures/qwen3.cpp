// Qwen3, dense: each head of q and k has an RMS norm of its own before it turns; no biases.
#include "models/architectures/qwen.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(qwen3) {
  Architecture a;
  a.hf_class = "Qwen3ForCausalLM", a.model_type = "qwen3", a.gguf = "qwen3";
  a.defaults = {.max_position = 32768, .head_dim = 128, .kv_heads = false};
  a.describe = [](ModelConfig& c) { c.qk_norm = QkNorm::head; };
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
    read_qwen_window(c, f);
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    j.set("attention_bias", c.qkv_bias);
    write_qwen_window(c, j);
  };
  return a;
}

}  // namespace supersonic::io
