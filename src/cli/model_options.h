// Options that every command which runs a model has: the model, the adapter, the arithmetic, the
// threads. And what they lead to: a loaded model with its adapter attached.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "cli/options.h"
#include "core/executor.h"
#include "models/model.h"

namespace supersonic::cli {

// --compute and --threads.
struct ComputeOptions {
  std::string compute = "auto";
  std::optional<int> threads;
  void options(Options& o);
  int thread_count() const;  // as asked, or as many as this process may use
  Compute resolve(const models::Model& model) const;  // what "auto" means for the model
  Compute resolve_training(
      const models::Model& model) const;  // auto: bf16 where the machine multiplies it (activations
                                          // are then half the size, too), else fp32
  Executor make_executor() const;  // sets the backend's threads: call it once, before anything runs
};

struct LoadedModel {
  models::Model model;
  nn::LoraSet adapter;
  const nn::LoraSet* lora() const { return adapter.slots.empty() ? nullptr : &adapter; }
};

// The positional argument MODEL; declare it first.
void declare_model(Options& o, std::string& model);

// Loads, and warns of what this engine computes as others do only within limits.
models::Model load_and_warn(const std::string& path, const models::LoadOptions& options = {});

// MODEL, --adapter and ComputeOptions.
struct ModelOptions : ComputeOptions {
  std::string model, adapter;
  void declare_model(Options& o) { cli::declare_model(o, model); }
  void declare_adapter(Options& o);
  LoadedModel load() const;  // throws Error(bad_file)
};

// --kv-type: the type of cached keys and values. auto: f32 in fp32 arithmetic, else bf16.
void declare_kv_type(Options& o, std::string& name);
DType kv_dtype(const std::string& name, Compute compute);

}  // namespace supersonic::cli
