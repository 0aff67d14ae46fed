// Gemma 2: norms before and after each block, whose weights count from 1; every second layer sees a
// window; scores and logits are capped by tanh.
#include <cmath>

#include "models/architectures/gemma.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

namespace {

constexpr std::int64_t kPeriod = 2, kLayersOf27B = 46;

// null: none; a key that is not there means transformers' default.
double cap(const JsonFields& f, const char* key, double otherwise) {
  return f.value().contains(key) ? f.real(key, 0, 1e6).value_or(0) : otherwise;
}

}  // namespace

ARCHITECTURE(gemma2) {
  Architecture a;
  a.hf_class = "Gemma2ForCausalLM", a.model_type = "gemma2", a.gguf = "gemma2";
  a.unit_norms = true;
  a.names = gemma_names();
  a.defaults = {.max_position = 8192, .head_dim = 256, .kv_heads = false, .tied = true};
  a.describe = describe_gemma;
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    read_gemma(c, f);
    require_false(f, "use_bidirectional_attention");
    c.attention_cap = cap(f, "attn_logit_softcapping", 50);
    c.logit_cap = cap(f, "final_logit_softcapping", 30);
    const auto window = f.value().contains("sliding_window")
                            ? f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0)
                            : 4096;
    read_sliding_layers(c, f, window,
                        [](std::int64_t layer) { return (layer + 1) % kPeriod != 0; });
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    write_gemma(c, j);
    const auto cap = [](double x) { return x > 0 ? JsonTree(x) : nullptr; };
    j.set("attn_logit_softcapping", cap(c.attention_cap));
    j.set("sliding_window", c.sliding_window ? JsonTree(c.sliding_window) : nullptr);
    write_layer_types(c, j);
  };
  a.from_gguf = [](ModelConfig& c, const GgufFile& file, const std::string& prefix) {
    gemma_from_gguf(c, file, prefix, kLayersOf27B);
    c.attention_cap = file.get_float(prefix + "attn_logit_softcapping", 50.0);
    c.logit_cap = file.get_float(prefix + "final_logit_softcapping", 30.0);
    if (!file.find(prefix + "attention.sliding_window")) c.sliding_window = 4096;
    sliding_pattern_from_gguf(c, file, prefix, kPeriod);
  };
  a.to_gguf = [](const ModelConfig& c, GgufWriter& out, const std::string& prefix) {
    gemma_to_gguf(c, out, prefix, kLayersOf27B);
    out.set_f32(prefix + "attn_logit_softcapping", static_cast<float>(c.attention_cap));
    sliding_pattern_to_gguf(c, out, prefix, kPeriod);
  };
  return a;
}

}  // namespace supersonic::io
