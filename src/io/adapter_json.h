// What the adapter's source files share: adapter_config.json of an adapter that is about to be
// written, and how PEFT names the adapters of experts.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::io {

struct LoraAdapter;
struct LoraConfig;
struct LoraModule;
std::string to_adapter_json(const LoraAdapter& adapter);

// PEFT adapts parameters of one module by wrapping it once for each, in the order in which the
// module declares them: with both targeted, the keys of P.gate_up_proj are P.base_layer.lora_A and
// _B, and those of P.down_proj P.lora_A and _B. These are the parameters of experts that can be
// adapted, innermost first.
inline constexpr std::string_view kExpertParameters[] = {"gate_up_proj", "down_proj"};
// The parameter that a key's module stands for, "model.layers.0.mlp.experts.down_proj"; empty where
// target_parameters name none of that module: a linear layer.
std::string targeted_parameter(const LoraConfig& config, const std::string& module,
                               const std::string& source);
// The module in the keys of an expert module, and what target_parameters must list.
std::string wrapped_module(const LoraAdapter& adapter, const LoraModule& module);
std::vector<std::string> target_parameters(const LoraAdapter& adapter);

}  // namespace supersonic::io
