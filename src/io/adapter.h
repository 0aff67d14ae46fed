// LoRA adapters as files: PEFT folders (adapter_config.json + adapter_model.safetensors) and GGUF
// adapters (what llama.cpp loads beside a model). Here an adapter is names and float matrices;
// which layer a name belongs to, and whether q and k rows must change their order (io/qk_layout.h),
// is decided by the model code. What this engine cannot apply (DoRA, biases, saved modules, …) is
// refused with the reason, never dropped.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/dtype.h"

namespace supersonic::io {

class GgufFile;

struct LoraModule {
  std::string name;  // PEFT: "model.layers.0.self_attn.q_proj"; GGUF: "blk.0.attn_q.weight". Of a
                     // mixture's experts: "model.layers.0.mlp.experts.gate_up_proj", the parameter
                     // that target_parameters names; GGUF: "blk.0.ffn_up_exps.weight"
  std::int64_t rank = 0, in = 0, out = 0;
  double alpha = 0;
  std::vector<float> a, b;   // (rank, in), (out, rank), row-major; delta W = scale * b a
  std::int64_t experts = 0;  // each with matrices: a (experts, rank, in), b (experts, out, rank);
                             // 0: a linear layer
};

struct LoraConfig {
  std::int64_t rank = 0;
  double alpha = 0, dropout = 0;
  bool use_rslora = false;                  // scale alpha / sqrt(rank) in place of alpha / rank
  std::vector<std::string> target_modules;  // as the file lists them; empty when it holds a pattern
  std::string target_pattern;               // a regular expression, or "all-linear"
  std::vector<std::string> target_parameters;  // "mlp.experts.down_proj": experts' matrices
  std::string base_model, revision, task_type = "CAUSAL_LM";
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;  // module pattern -> rank
  std::vector<std::pair<std::string, double>> alpha_pattern;
};

struct LoraAdapter {
  LoraConfig config;
  std::vector<LoraModule> modules;  // sorted by name
};

double lora_scale(const LoraConfig& config, const LoraModule& module);

// All throw Error(bad_file) for what is malformed or cannot be applied.
LoraConfig lora_config_from_json(std::string_view text, const std::string& source);
LoraAdapter read_peft_adapter(const std::string& folder);
// Creates the folder; writes the weights first, the config last, each atomically. Module ranks and
// alphas that differ from config.rank and config.alpha become rank_pattern and alpha_pattern.
// target_modules and target_parameters follow from the names.
void write_peft_adapter(const std::string& folder, const LoraAdapter& adapter,
                        DType dtype = DType::f32);

struct GgufAdapter {
  std::string architecture;  // of the base model: "llama"
  LoraAdapter adapter;       // names as in the base file
};
bool is_gguf_adapter(const GgufFile& file);  // general.type is "adapter"
GgufAdapter read_gguf_adapter(const GgufFile& file);
// A GGUF adapter has one alpha; modules whose scale does not follow from it get the difference
// multiplied into b.
void write_gguf_adapter(const std::string& path, const GgufAdapter& adapter,
                        DType dtype = DType::f32);

}  // namespace supersonic::io
