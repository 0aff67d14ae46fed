// Mistral 7B and its successors: a Llama with a sliding window, or with none.
#include "core/error.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(mistral) {
  Architecture a;
  a.hf_class = "MistralForCausalLM", a.model_type = "mistral", a.gguf = "llama";
  a.reads_gguf = false, a.gguf_interleaved = true;
  a.defaults = {.max_position = 131072, .kv_heads = false};
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    // null means no window; a key that is not there means transformers' default.
    std::int64_t window = 4096;
    if (f.value().contains("sliding_window"))
      window = f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0);
    read_sliding_layers(c, f, window, [](std::int64_t) { return true; });
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    CHECK(!c.qkv_bias && !c.o_bias && !c.mlp_bias,
          "{} has no class in transformers with just these biases; save as GGUF instead",
          c.architecture);
    j.set("sliding_window", c.sliding_window ? JsonTree(c.sliding_window) : nullptr);
    if (!c.sliding_layers.empty()) write_layer_types(c, j);
  };
  a.to_gguf = [](const ModelConfig& c, GgufWriter& out, const std::string& prefix) {
    if (c.sliding_window > 0 && c.sliding_layers.empty())
      out.set_u32(prefix + "attention.sliding_window",
                  static_cast<std::uint32_t>(c.sliding_window));
  };
  return a;
}

}  // namespace supersonic::io
