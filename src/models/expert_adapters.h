// Adapters of a mixture's experts, which files have in three forms: PEFT on the fused parameters of
// transformers 5 (gate and up share A; io/adapter.h), PEFT on each expert's three linear layers, as
// older versions had them, and GGUF on the stacked tensors of gate, up and down. The first is what
// the engine runs and writes; the other two become it, exactly: where gate and up have an A each,
// the shared one has the rows of both, and B zeros for the other's.
#pragma once
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "io/adapter.h"
#include "models/model.h"

namespace supersonic::models {

struct GatheredModules {
  std::vector<const io::LoraModule*> all;  // of linear layers as they were, of experts put together
  std::deque<io::LoraModule> made;         // those of `all` that are new
};
// Throws Error(bad_file) where the pieces do not make whole experts. The adapter must outlive the
// result.
GatheredModules gather_experts(Model& model, const io::LoraAdapter& adapter,
                               const std::string& source);

// A fused module <-> the slot's matrices; gpt-oss alternates the rows of gate and up.
void put_experts(const Model& model, const io::LoraModule& module, const nn::LoraSlot& slot,
                 std::span<float> values);
void take_experts(const Model& model, const nn::LoraSlot& slot, std::span<const float> values,
                  io::LoraModule& module);

// A fused module as modules of GGUF's tensors: "blk.0.ffn_gate_exps.weight" and so on.
std::vector<io::LoraModule> split_experts(const Model& model, const io::LoraModule& module);

}  // namespace supersonic::models
