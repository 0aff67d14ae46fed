// Qwen2 and Qwen2.5: a Llama with biases on q, k and v, and a window in its later layers where
// asked.
#include "core/error.h"
#include "models/architectures/qwen.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(qwen2) {
  Architecture a;
  a.hf_class = "Qwen2ForCausalLM", a.model_type = "qwen2", a.gguf = "qwen2";
  a.defaults = {.max_position = 32768, .kv_heads = false};
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.qkv_bias = true;
    read_qwen_window(c, f);
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    CHECK(c.qkv_bias && !c.o_bias && !c.mlp_bias,
          "{} has no class in transformers with just these biases; save as GGUF instead",
          c.architecture);
    write_qwen_window(c, j);
  };
  return a;
}

}  // namespace supersonic::io
