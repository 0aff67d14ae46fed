#include "cli/model_options.h"

#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "cli/console.h"
#include "core/backend.h"
#include "core/device.h"
#include "core/machine.h"
#include "infer/session.h"
#include "models/adapter.h"

namespace supersonic::cli {

void ComputeOptions::options(Options& o) {
  o.add("compute", compute,
        "Arithmetic of matrix products; auto: int8 for 4-bit models, bf16 for 16-bit ones where "
        "the machine has it. fp8: frozen weights and what they are multiplied with as E4M3, on an "
        "NVIDIA H100, H200 or GH200")
      .choices({"auto", "fp32", "bf16", "int8", "fp8"});
  o.add("threads", threads, "Threads; auto: as many CPUs as this process may use").range(1, 1024);
}

void ComputeOptions::declare_device(Options& o) {
  device = "auto";
  o.add("device", device, "Where to compute: auto (a GPU where one is), cpu, cuda, cuda:1, …")
      .value("DEVICE");
}

int ComputeOptions::thread_count() const { return threads.value_or(usable_threads()); }

Compute ComputeOptions::resolve(const models::Model& model) const {
  for (Compute c : {Compute::fp32, Compute::bf16, Compute::int8, Compute::fp8}) {
    if (compute != name_of(c)) continue;
    if (!backend().computes(c))
      fail(ErrorKind::usage,
           "--compute {}: device '{}' has no such products; it takes a GPU of compute capability "
           "9.0 (NVIDIA H100, H200, GH200). Everything else has --compute bf16",
           compute, backend().name());
    return c;
  }
  return on_gpu() ? Compute::bf16 : infer::auto_compute(model);
}

Compute ComputeOptions::resolve_training(const models::Model& model) const {
  if (compute != "auto") return resolve(model);
  return on_gpu() || cpu::isa() == cpu::Isa::avx512 ? Compute::bf16 : Compute::fp32;
}

Backend& ComputeOptions::backend() const {
  cpu::set_threads(thread_count());
  return device_backend(device);
}

std::jthread ComputeOptions::open_early() const {
  if (device == "cpu") return {};
  return std::jthread([name = device == "auto" ? "cuda" : device] {
    try {
      device_backend(name);
    } catch (const Error&) {
    }
  });
}

bool ComputeOptions::on_gpu() const { return !(backend().compute_place() == Place{}); }

Executor ComputeOptions::make_executor(models::Model& model) const {
  Executor executor = make_executor();
  models::make_resident(model, executor.backend());
  return executor;
}

void declare_model(Options& o, std::string& model) {
  o.positional("model", model,
               "GGUF file, Hugging Face folder, or OWNER/NAME[:TYPE] of a pulled model")
      .letter('m')
      .value("MODEL")
      .model()
      .required();
}

models::Model load_and_warn(const std::string& path, const models::LoadOptions& options) {
  models::Model model = models::load_model(path, options);
  if (model.config.rope_scaling.kind == io::RopeScaling::Kind::dynamic)
    log_warning(
        "{}: rope_scaling is of type \"dynamic\", which this program has up to "
        "max_position_embeddings alone ({} tokens): --ctx and --seq-len beyond them are refused",
        path, model.config.max_position_embeddings);
  if (const std::string& whole = model.config.text_part_of; !whole.empty())
    log_info("{}: a {}: its text part alone is used, images cannot be read here", path, whole);
  return model;
}

void ModelOptions::declare_adapter(Options& o) {
  o.add("adapter", adapter,
        "LoRA adapter: PEFT folder, GGUF adapter, or the output folder of 'train'")
      .value("PATH")
      .model();
}

LoadedModel ModelOptions::load() const {
  LoadedModel loaded{load_and_warn(model), {}};
  if (!adapter.empty()) {
    loaded.adapter =
        models::attach_adapter(loaded.model, models::read_adapter(adapter, loaded.model), adapter);
    log_detail("{}: {} adapted matrices", adapter, loaded.adapter.slots.size());
  }
  return loaded;
}

std::size_t training_budget(const std::optional<Bytes>& memory, std::uint64_t program,
                            const models::Model& model, Backend& backend) {
  constexpr double kShare = 0.8;  // the rest is for what comes and goes on a machine in use
  const bool apart = !(backend.compute_place() == Place{});
  if (memory) return memory->count - std::min(memory->count, apart ? 0 : program);
  const auto room = static_cast<std::size_t>(kShare * static_cast<double>(free_bytes(backend)));
  const std::size_t weights = std::min(model.weight_bytes(), room);
  return apart ? weights + static_cast<std::size_t>(
                               kShare * static_cast<double>(free_bytes(backend) - weights))
               : room;
}

void declare_targets(Options& o, std::vector<std::string>& targets) {
  o.add("targets", targets,
        "Layers to adapt: names (q_proj, …), all-linear (all but a mixture's experts), experts, or "
        "experts.gate_up_proj, experts.down_proj")
      .commas()
      .shown("all-linear");
}

void declare_kv_type(Options& o, std::string& name) {
  o.add("kv-type", name, "Type of cached keys and values; auto: f32 with --compute fp32, else bf16")
      .choices({"auto", "bf16", "f16", "f32", "q8", "fp8"});
}

models::TensorType kv_type_of(const std::string& name, Compute compute) {
  if (name == "auto") return {compute == Compute::fp32 ? DType::f32 : DType::bf16};
  if (name == "q8") return {DType::quant, find_format("q8_0")};
  if (name == "fp8") return {DType::quant, find_format("fp8")};
  return {name == "f32" ? DType::f32 : name == "f16" ? DType::f16 : DType::bf16};
}

}  // namespace supersonic::cli
