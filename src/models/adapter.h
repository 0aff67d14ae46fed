// LoRA adapters of files <-> the flat storages of a model's linears. Files name modules as Hugging
// Face does (PEFT, q and k rows half-split) or as GGUF does (rows as the model file of that
// architecture has them); both become slots of a LoraSet in the row order of the loaded model. The
// way back gives PEFT's names and order, whatever the model file was.
#pragma once
#include <string>

#include "io/adapter.h"
#include "models/model.h"

namespace supersonic::models {

// Fits the adapter's matrices to the model's linears: each adapted Linear gets its slot, the others
// lose theirs. Throws Error(bad_file) for a module that the model does not have or whose sizes
// differ. `source` begins every message.
nn::LoraSet attach_adapter(Model& model, const io::LoraAdapter& adapter, const std::string& source,
                           bool train = false);

// The set's values as a PEFT adapter (names and q/k rows as Hugging Face has them), modules sorted
// by name. `config` gives what the set does not know: rank and alpha that new modules default to,
// dropout, base model.
io::LoraAdapter extract_adapter(const Model& model, const nn::LoraSet& set,
                                const io::LoraConfig& config = {});

// Writes it (io::write_peft_adapter) with the names that PEFT has for the modules of the model's
// own class.
void write_adapter(const std::string& folder, const Model& model, io::LoraAdapter adapter,
                   DType dtype = DType::f32);

// path: a PEFT folder, a GGUF adapter, or the output folder of a training run (its subfolder
// "adapter"). Throws Error(bad_file). A GGUF adapter keeps GGUF's names; its architecture must be
// the model's.
io::LoraAdapter read_adapter(const std::string& path, const Model& model);

}  // namespace supersonic::models
