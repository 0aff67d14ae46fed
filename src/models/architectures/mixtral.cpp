// Mixtral: Mistral's attention, and a mixture of experts in each layer. Its GGUF files say llama.
#include "models/architectures/mixture.h"

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(mixtral) {
  Architecture a;
  a.hf_class = "MixtralForCausalLM", a.model_type = "mixtral", a.gguf = "llama";
  a.reads_gguf = false, a.gguf_interleaved = true;
  a.defaults = {.max_position = 131072, .rope_theta = 1e6, .rms_norm_eps = 1e-5, .kv_heads = false};
  a.names = {{Role::router, "block_sparse_moe.gate", "ffn_gate_inp"},
             {Role::expert_gate, "block_sparse_moe.experts.*.w1", "ffn_gate_exps"},
             {Role::expert_up, "block_sparse_moe.experts.*.w3", "ffn_up_exps"},
             {Role::expert_down, "block_sparse_moe.experts.*.w2", "ffn_down_exps"}};
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.experts.count = f.integer("num_local_experts", 1, 65536).value_or(8);
    c.experts.used = f.integer("num_experts_per_tok", 1, 64).value_or(2);
    c.experts.width = c.intermediate_size;
    const auto window = f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0);
    set_sliding_layers(c, window,
                       std::vector<std::uint8_t>(static_cast<std::size_t>(c.num_hidden_layers), 1));
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) {
    j.set("num_local_experts", c.experts.count);
    j.set("num_experts_per_tok", c.experts.used);
    j.set("sliding_window", c.sliding_window ? JsonTree(c.sliding_window) : nullptr);
  };
  a.to_gguf = experts_to_gguf;
  return a;
}

}  // namespace supersonic::io
