// Tensor names of the Llama family, in both worlds.
#include <array>
#include <utility>

#include "models/model.h"

namespace supersonic::models {
namespace {

constexpr std::array<std::pair<const char*, const char*>, 9> kLayerNames = {{{"self_attn.q_proj", "attn_q"},
                                                                            {"self_attn.k_proj", "attn_k"},
                                                                            {"self_attn.v_proj", "attn_v"},
                                                                            {"self_attn.o_proj", "attn_output"},
                                                                            {"mlp.gate_proj", "ffn_gate"},
                                                                            {"mlp.up_proj", "ffn_up"},
                                                                            {"mlp.down_proj", "ffn_down"},
                                                                            {"input_layernorm", "attn_norm"},
                                                                            {"post_attention_layernorm", "ffn_norm"}}};
constexpr std::array<std::pair<const char*, const char*>, 3> kOuterNames = {
    {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}}};

// Splits "<prefix>N.<rest>"; false when the name has another form.
bool split_layer(const std::string& name, const std::string& prefix, std::string& number, std::string& rest) {
  if (name.rfind(prefix, 0) != 0) return false;
  const std::size_t dot = name.find('.', prefix.size());
  if (dot == std::string::npos) return false;
  number = name.substr(prefix.size(), dot - prefix.size());
  rest = name.substr(dot + 1);
  return !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

std::string gguf_name(const std::string& hf_module) {
  std::string number, rest;
  if (split_layer(hf_module, "model.layers.", number, rest))
    for (const auto& [hf, gguf] : kLayerNames)
      if (rest == hf) return "blk." + number + "." + gguf;
  for (const auto& [hf, gguf] : kOuterNames)
    if (hf_module == hf) return gguf;
  fail(ErrorKind::bad_file, "module '{}' has no place in a GGUF file of the llama family", hf_module);
}

std::string hf_name(const std::string& gguf_module) {
  std::string number, rest;
  if (split_layer(gguf_module, "blk.", number, rest))
    for (const auto& [hf, gguf] : kLayerNames)
      if (rest == gguf) return "model.layers." + number + "." + hf;
  for (const auto& [hf, gguf] : kOuterNames)
    if (gguf_module == gguf) return hf;
  fail(ErrorKind::bad_file, "tensor '{}' belongs to no module of the llama family", gguf_module);
}

}  // namespace supersonic::models
