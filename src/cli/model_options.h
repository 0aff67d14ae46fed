// Options that every command which runs a model has: the model, the adapter, the arithmetic, the
// threads. And what they lead to: a loaded model with its adapter attached.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cli/options.h"
#include "core/executor.h"
#include "models/model.h"
#include "models/tensor_type.h"

namespace supersonic::cli {

// --compute, --threads and --device.
struct ComputeOptions {
  std::string compute = "auto", device = "cpu";
  std::optional<int> threads;
  void options(Options& o);
  void declare_device(Options& o);  // for what also runs on a GPU; then auto, else the CPU
  int thread_count() const;         // as asked, or as many as this process may use
  Compute resolve(const models::Model& model) const;  // what "auto" means for the model
  Compute resolve_training(
      const models::Model& model) const;  // auto: bf16 where the machine multiplies it (activations
                                          // are then half the size, too), else fp32
  Backend& backend() const;  // sets the CPU's threads; what --device asks for, else throws
  // Opens the GPU that --device may mean on a thread of its own, which takes part of a second, while
  // the caller reads files. What is wrong with it backend() says.
  std::jthread open_early() const;
  Executor make_executor() const { return Executor(backend()); }
  // Also uploads the model's weights where --device has memory of its own.
  Executor make_executor(models::Model& model) const;

 private:
  bool on_gpu() const;
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

// --targets: the layers that get an adapter (train::LoraOptions).
void declare_targets(Options& o, std::vector<std::string>& targets);

// What weights, adapter and working memory of a training run may take: --memory, or else a share of
// what the backend has free. program: the most that the process had resident before the model is
// opened, which on a CPU are part of --memory; a GPU's bare context is nobody's choice and is not.
std::size_t training_budget(const std::optional<Bytes>& memory, std::uint64_t program,
                            const models::Model& model, Backend& backend);

// --kv-type: the type of cached keys and values. auto: f32 in fp32 arithmetic, else bf16.
void declare_kv_type(Options& o, std::string& name);
models::TensorType kv_type_of(const std::string& name, Compute compute);

}  // namespace supersonic::cli
