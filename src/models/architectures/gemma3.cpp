// Gemma 3 (the text models, and the text part of those that read images): norms before and after
// each block, whose weights count from 1; q and k normalised by head; five layers that see a window
// and turn faster, then one that sees everything.
#include <cmath>

#include "models/architectures/gemma.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

namespace {

constexpr std::int64_t kPeriod = 6;
// The 27B model alone divides by the width of a head in another way; GGUF files do not say it.
constexpr std::int64_t kLayersOf27B = 62;

}  // namespace

ARCHITECTURE(gemma3) {
  Architecture a;
  a.hf_class = "Gemma3ForCausalLM", a.model_type = "gemma3_text", a.gguf = "gemma3";
  a.outer_class = "Gemma3ForConditionalGeneration", a.outer_type = "gemma3";
  a.unit_norms = true;
  a.names = gemma_names();
  a.defaults = {.max_position = 131072,
                .rope_theta = 1e6,
                .local_rope_theta = 1e4,
                .head_dim = 256,
                .kv_heads = false,
                .heads = 8,
                .groups = 4,
                .vocab = 262208,
                .tied = true};
  a.describe = [](ModelConfig& c) { describe_gemma(c), c.qk_norm = QkNorm::head; };
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    read_gemma(c, f);
    require_false(f, "use_bidirectional_attention");
    const auto period = f.integer("sliding_window_pattern", 1, 65536).value_or(kPeriod);
    const auto window = f.value().contains("sliding_window")
                            ? f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0)
                            : 4096;
    read_sliding_layers(c, f, window,
                        [&](std::int64_t layer) { return (layer + 1) % period != 0; });
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    write_gemma(c, j);
    j.set("rope_local_base_freq", c.local_rope_theta);
    j.set("sliding_window", c.sliding_window ? JsonTree(c.sliding_window) : nullptr);
    write_layer_types(c, j);
  };
  a.from_gguf = [](ModelConfig& c, const GgufFile& file, const std::string& prefix) {
    gemma_from_gguf(c, file, prefix, kLayersOf27B);
    c.local_rope_theta = file.get_float(prefix + "rope.freq_base_swa", 1e4);
    sliding_pattern_from_gguf(c, file, prefix, kPeriod);
  };
  a.to_gguf = [](const ModelConfig& c, GgufWriter& out, const std::string& prefix) {
    gemma_to_gguf(c, out, prefix, kLayersOf27B);
    if (c.local_rope_theta != 1e4)
      out.set_f32(prefix + "rope.freq_base_swa", static_cast<float>(c.local_rope_theta));
    sliding_pattern_to_gguf(c, out, prefix, kPeriod);
  };
  return a;
}

}  // namespace supersonic::io
