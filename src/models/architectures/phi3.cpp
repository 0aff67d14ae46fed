// Phi-3, Phi-3.5 and Phi-4 (the text models): q, k and v are one matrix, gate and up another; heads
// may turn in part, and long contexts have frequency divisors of their own (longrope).
#include "core/error.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(phi3) {
  Architecture a;
  a.hf_class = "Phi3ForCausalLM", a.model_type = "phi3", a.gguf = "phi3";
  a.partial_rotary = true;
  a.defaults = {.max_position = 4096, .rms_norm_eps = 1e-5};
  a.describe = [](ModelConfig& c) { c.fused = true; };
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    if (f.boolean("attention_bias").value_or(false)) f.bad("attention_bias", "false");
    const auto window = f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0);
    read_sliding_layers(c, f, window, [](std::int64_t) { return true; });
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    j.set("original_max_position_embeddings", c.rope_scaling.original_max_position
                                                  ? c.rope_scaling.original_max_position
                                                  : c.max_position_embeddings);
    j.set("sliding_window", c.sliding_window ? JsonTree(c.sliding_window) : nullptr);
    if (!c.sliding_layers.empty()) write_layer_types(c, j);
  };
  a.from_gguf = [](ModelConfig&, const GgufFile& file, const std::string&) {
    CHECK_FILE(file.find_tensor("blk.0.attn_qkv.weight"),
               "{}: q, k and v of this phi3 file are apart, which this program does not read; "
               "convert the model again",
               file.path());
  };
  a.to_gguf = [](const ModelConfig& c, GgufWriter& out, const std::string& prefix) {
    CHECK(c.sliding_layers.empty(),
          "a GGUF file cannot say which layers of a Phi-3 slide; save as a folder instead");
    // 0 where there is none: that is how llama.cpp knows Phi-4.
    out.set_u32(prefix + "attention.sliding_window", static_cast<std::uint32_t>(c.sliding_window));
    if (!c.rope_scaling.original_max_position)
      out.set_u32(prefix + "rope.scaling.original_context_length",
                  static_cast<std::uint32_t>(c.max_position_embeddings));
  };
  return a;
}

}  // namespace supersonic::io
