// An architecture: how the files of one kind of model, in both containers, describe it. One file of
// src/models/architectures declares it whole:
//
//   ARCHITECTURE(qwen3) {
//     Architecture a;
//     a.hf_class = "Qwen3ForCausalLM", a.model_type = "qwen3", a.gguf = "qwen3";
//     a.describe = [](ModelConfig& c) { c.qk_norm = QkNorm::head; };   // true of every model of it
//     a.from_json = …; a.to_json = …; a.from_gguf = …; a.to_gguf = …;  // fields that others do not
//     have return a;
//   }
//
// The build collects the marks (cmake/registry.cmake). Sizes, norm epsilon, rotation, windows and
// token ids are read and written for all alike (hf_config.cpp, model_config.cpp) before the hooks
// run.
#pragma once
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/model_config.h"

namespace supersonic::io {

class JsonFields;
class JsonTree;

// What a layer's tensors are, whatever they are called.
enum class Role {
  attention_norm,
  attention_post_norm,
  q,
  k,
  v,
  qkv,
  q_norm,
  k_norm,
  sinks,
  o,
  mlp_norm,
  mlp_post_norm,
  gate,
  up,
  gate_up,
  down,
  router,
  expert_gate,
  expert_up,
  expert_down,
};
// Both worlds' names of a layer's module, without "model.layers.N." and "blk.N.".
struct RoleName {
  Role role;
  std::string_view hf, gguf;
};

// What config.json may leave out, as transformers fills it in.
struct ConfigDefaults {
  std::int64_t max_position = 2048;
  double rope_theta = 10000.0, rms_norm_eps = 1e-6;
  double local_rope_theta = 0;  // 0: all layers turn alike
  std::int64_t head_dim = 0;    // 0: hidden_size / num_attention_heads
  bool kv_heads = true;         // num_key_value_heads may be absent: one for each query head
  std::int64_t heads = 0, groups = 0, vocab = 0;  // 0: must be stated
  bool tied = false;
};

struct Architecture {
  std::string_view name;  // set by ARCHITECTURE
  std::string_view hf_class, model_type;
  // Of models that have this one as text_config, beside vision, which is left out; empty: none.
  std::string_view outer_class, outer_type;
  std::string_view gguf;  // general.architecture
  bool reads_gguf =
      true;  // false: another architecture's from_gguf finds out (Mistral's files say llama)
  bool gguf_interleaved =
      false;  // GGUF files keep rotated q and k rows side by side (io/qk_layout.h)
  bool partial_rotary = false;  // a head's last dimensions may stay unturned
  bool fused_experts = false;   // folders keep experts as gpt-oss does (models/fused_experts.h)
  bool unit_norms = false;      // folders store norm weights minus 1 (Gemma)
  ConfigDefaults defaults;
  std::vector<RoleName> names;  // where they differ from the common ones

  void (*describe)(ModelConfig&) = nullptr;
  void (*from_json)(ModelConfig&, const JsonFields&) = nullptr;
  void (*to_json)(const ModelConfig&, JsonTree&) = nullptr;
  // prefix: "qwen3.", of this architecture's keys.
  void (*from_gguf)(ModelConfig&, const GgufFile&, const std::string& prefix) = nullptr;
  void (*to_gguf)(const ModelConfig&, GgufWriter&, const std::string& prefix) = nullptr;

  const RoleName& name_of(Role role) const;
};

std::span<const Architecture* const> all_architectures();  // generated, sorted by name
const Architecture& architecture_of(const ModelConfig& config);
const Architecture* find_architecture(std::string_view name);  // null when unknown

// For the hooks. The list layer_types of sliding_attention and full_attention, or `otherwise` of
// each layer; with it and the window, sliding_window and sliding_layers are set.
void read_sliding_layers(ModelConfig& c, const JsonFields& f, std::int64_t window,
                         const std::function<bool(std::int64_t layer)>& otherwise);
void set_sliding_layers(ModelConfig& c, std::int64_t window, std::vector<std::uint8_t> layers);
void write_layer_types(const ModelConfig& c, JsonTree& j);
// GGUF: which layers slide. Every `period`th does not, unless the file lists them.
void sliding_pattern_from_gguf(ModelConfig& c, const GgufFile& file, const std::string& prefix,
                               std::int64_t period);
void sliding_pattern_to_gguf(const ModelConfig& c, GgufWriter& out, const std::string& prefix,
                             std::int64_t period);
// Refuses another activation than `expected` (a list of spellings of one).
void require_activation(const JsonFields& f, const char* key,
                        std::initializer_list<std::string_view> expected);
void require_false(const JsonFields& f, const char* key);  // what would need code that is not here

#define ARCHITECTURE(symbol)                    \
  static Architecture make_##symbol();          \
  const Architecture& symbol##_architecture() { \
    static const Architecture record = [] {     \
      Architecture a = make_##symbol();         \
      a.name = #symbol;                         \
      return a;                                 \
    }();                                        \
    return record;                              \
  }                                             \
  static Architecture make_##symbol()

}  // namespace supersonic::io
