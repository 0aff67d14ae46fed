// supersonic fit MODEL: what a run would take, from its plan; nothing is computed.
#include <fmt/format.h>

#include <algorithm>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "core/device.h"
#include "core/error.h"
#include "core/machine.h"
#include "infer/session.h"
#include "text/model_text.h"
#include "text/tokenizer.h"
#include "train/trainer.h"

namespace supersonic::cli {
namespace {

std::string size_text(std::uint64_t bytes) {
  const auto n = static_cast<double>(bytes);
  return bytes >= std::uint64_t{1} << 30 ? fmt::format("{:.2f} GiB", n / (1 << 30))
                                         : fmt::format("{:.1f} MiB", n / (1 << 20));
}

struct Part {
  const char *key, *name;
  std::uint64_t bytes;
  std::string note;
};

struct Estimate {
  std::vector<Part> parts;
  std::uint64_t total() const {
    std::uint64_t n = 0;
    for (const Part& p : parts) n += p.bytes;
    return n;
  }
};

struct Fit : ModelOptions {
  bool train = false, json = false;
  std::int64_t context = 0, batch = 4, seq_len = 256, rank = 16;
  std::string kv_type = "auto", optim = "adamw", method = "lora";
  std::vector<std::string> targets;
  std::optional<Bytes> memory;

  static constexpr About about{
      .summary = "Show what a model needs before it runs",
      .usage = "MODEL [--ctx N | --train]",
      .details =
          "Plans a run, or a training step with --train, and prints what takes which memory. "
          "Nothing is computed and no weight is "
          "read. Ends with 3 when --memory, or else what this machine has free, is not enough.",
      .examples =
          "supersonic fit model.gguf\nsupersonic fit model.gguf --ctx 32768 --memory "
          "8GiB\nsupersonic fit model.gguf --train --batch 4 --seq-len 2048 --json",
      .group = CommandGroup::measure};

  void options(Options& o) {
    declare_model(o);
    o.add("memory", memory,
          "Bytes that may be used (8GiB, 900M); auto: what is free on the device");
    declare_adapter(o);
    ComputeOptions::options(o);
    declare_device(o);
    o.group("A run");
    o.add("ctx", context, "Context in tokens; 0: 4,096, at most what the model was trained for")
        .range(0, 1 << 24);
    declare_kv_type(o, kv_type);
    o.group("Training");
    o.add("train", train, "Plan a training step");
    o.add("method", method, "lora: an adapter beside the frozen model; full: all weights of a 16- or 32-bit model").choices({"lora", "full"});
    o.add("batch", batch, "Rows of a micro-batch").range(1, 1 << 16);
    o.add("seq-len", seq_len, "Tokens of a row").range(1, 1 << 20);
    o.add("rank", rank, "Rank of the adapter").range(1, 4096);
    declare_targets(o, targets);
    o.add("optim", optim, "Optimizer: its moments in 32 or in 8 bits")
        .choices({"adamw", "adamw-8bit"});
    o.group("Output");
    declare_json(o, json);
  }

  int run(Context&) {
    if (full() && !targets.empty())
      fail(ErrorKind::usage, "fit: --targets chooses layers for an adapter, and --method full trains all weights: leave one of them out");
    const text::Tokenizer tokenizer = text::ModelText(model).tokenizer();
    const bool apart = !(backend().compute_place() == Place{});  // a GPU holds no program
    const std::uint64_t program = apart ? 0 : peak_resident_bytes(),
                        room = memory ? memory->count : free_bytes(backend());
    LoadedModel loaded = load();
    if (!train) loaded.model = models::planned_residence(loaded.model, backend(), {});
    return train ? fit_training(loaded, backend(), program, room)
                 : fit_run(loaded, backend(), program, room);
  }

  std::string place_note(const char* mapped) const {
    return backend().compute_place() == Place{} ? mapped : "in the GPU's memory";
  }

  // --- a run ---

  Estimate run_estimate(const LoadedModel& loaded, Backend& backend, std::uint64_t base,
                        std::int64_t ctx) const {
    infer::SessionOptions o;
    o.compute = resolve(loaded.model);
    o.context = ctx;
    o.kv_type = kv_type_of(kv_type, o.compute);
    o.lora = loaded.lora();
    const infer::SessionMemory m = infer::plan_session(loaded.model, backend, o);
    Estimate e;
    e.parts = {{"weights", "weights", loaded.model.weight_bytes(),
                place_note("mapped from the file, read as they are")},
               {"kv_cache", "keys and values", m.cache,
                fmt::format("{} for {} tokens", name_of(o.kv_type), ctx)},
               {"working_memory", "working memory", m.arena,
                fmt::format("the plan's peak, {} arithmetic", name_of(o.compute))}};
    if (loaded.lora())
      e.parts.push_back({"adapter", "adapter", loaded.adapter.values->bytes, adapter});
    e.parts.push_back({"program", "program, tokenizer", base, ""});
    return e;
  }

  int fit_run(const LoadedModel& loaded, Backend& backend, std::uint64_t base,
              std::uint64_t room) const {
    const std::int64_t trained = loaded.model.config.max_position_embeddings;
    const std::int64_t ctx = context > 0 ? context : std::min<std::int64_t>(4096, trained);
    const Estimate e = run_estimate(loaded, backend, base, ctx);
    const std::int64_t longest = largest(std::max(trained, ctx), 64, [&](std::int64_t n) {
      return run_estimate(loaded, backend, base, n).total() <= room;
    });
    std::vector<std::string> advice;
    if (longest && longest < ctx) advice.push_back(fmt::format("--ctx {} fits", longest));
    const models::TensorType type = kv_type_of(kv_type, resolve(loaded.model));
    if (!longest && type.dtype == DType::f32)
      advice.push_back("--kv-type bf16 halves keys and values");
    if (longest && longest < ctx && size_of(type.dtype) == 2 &&
        loaded.model.config.head_dim % 32 == 0)
      advice.push_back("--kv-type q8 halves keys and values");
    if (!longest)
      advice.push_back("no context fits: free memory, or choose a smaller or a 4-bit model");
    return report(e, room, advice, {{"context", ctx}, {"largest_context", longest}});
  }

  // The largest multiple of `step` up to `most` (or `most`) that is possible, since more needs
  // more; 0: none.
  template <class Possible>
  static std::int64_t largest(std::int64_t most, std::int64_t step, Possible possible) {
    if (possible(most)) return most;
    std::int64_t low = 0, high = most / step;
    while (low < high) {
      const std::int64_t middle = low + (high - low + 1) / 2;
      if (possible(middle * step))
        low = middle;
      else
        high = middle - 1;
    }
    return low * step;
  }

  // --- training ---

  bool full() const { return method == "full"; }

  // What training takes with a plan that meets the budget, weights and state included; throws
  // Error(memory) where there is none.
  train::TrainMemory plan_training(LoadedModel& loaded, Backend& backend, std::int64_t rows,
                                   std::int64_t length, std::uint64_t budget) const {
    train::OptimizerOptions o;
    o.eight_bit = optim == "adamw-8bit";
    const auto planned = [&](const train::Parameters& parameters) {
      return train::planned_memory(loaded.model, parameters, backend, rows * length, resolve_training(loaded.model), o, {.budget = budget});
    };
    if (full()) return planned(train::plan_weights(loaded.model));
    nn::LoraSet& lora = loaded.adapter;
    if (lora.slots.empty() || !lora.gradients) {
      train::LoraOptions adapter_options;
      adapter_options.rank = rank;
      adapter_options.targets = targets;
      lora = train::make_lora(loaded.model, adapter_options, true);
    }
    return planned(lora);
  }

  bool training_fits(LoadedModel& loaded, Backend& backend, std::int64_t rows, std::int64_t length,
                     std::uint64_t budget) const {
    try {
      plan_training(loaded, backend, rows, length, budget);
      return true;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::memory) throw;
      return false;
    }
  }

  int fit_training(LoadedModel& loaded, Backend& backend, std::uint64_t base,
                   std::uint64_t room) const {
    train::TrainMemory m = plan_training(loaded, backend, batch, seq_len, SIZE_MAX);
    const std::uint64_t budget = room - std::min(room, base);
    std::vector<std::string> advice;
    if (m.total() > budget) {
      if (training_fits(loaded, backend, batch, seq_len, budget)) {
        m = plan_training(loaded, backend, batch, seq_len, budget);
      } else {
        const std::int64_t rows = largest(batch, 1, [&](std::int64_t n) {
          return training_fits(loaded, backend, n, seq_len, budget);
        });
        if (rows)
          advice.push_back(
              fmt::format("--batch {} fits; more accumulation keeps the effective batch", rows));
        const std::int64_t length = rows ? 0 : largest(seq_len, 32, [&](std::int64_t n) {
          return training_fits(loaded, backend, 1, n, budget);
        });
        if (length) advice.push_back(fmt::format("--batch 1 --seq-len {} fits", length));
        if (!rows && !length)
          advice.push_back("no batch fits: free memory, or choose a smaller or a 4-bit model");
      }
    }
    if (full() && m.total() > budget) {
      if (optim == "adamw") advice.push_back("--optim adamw-8bit takes 6 bytes a weight less");
      advice.push_back("an adapter takes less: --method lora");
    }
    Estimate e;
    e.parts = {{"weights", "weights", m.weights,
                m.outside ? fmt::format("frozen; {} more in host memory, with activations",
                                        size_text(m.outside))
                          : place_note("frozen, mapped from the file")},
               {"adapter", "adapter", m.parameters, fmt::format("rank {}, fp32", rank)},
               {"gradients", "gradients", m.gradients, ""},
               {"optimizer", "optimizer", m.moments, optim},
               {"working_memory", "working memory", m.arena + m.feeds, m.level},
               {"saving", "saving", m.saving, "the adapter, as it is written"},
               {"program", "program, tokenizer", base, ""}};
    if (full()) {
      e.parts[0] = {"weights", "weights", m.parameters, "all trained"};
      std::erase_if(e.parts, [](const Part& p) { return std::string_view(p.key) == "adapter" || std::string_view(p.key) == "saving"; });
    }
    return report(e, room, advice, {{"batch", batch}, {"seq_len", seq_len}});
  }

  // --- output ---

  using Numbers = std::vector<std::pair<const char*, std::int64_t>>;
  int report(const Estimate& e, std::uint64_t room, const std::vector<std::string>& advice,
             const Numbers& numbers) const {
    const bool fits = e.total() <= room;
    json ? report_json(e, room, fits, advice, numbers) : report_text(e, room, fits, numbers);
    if (fits) return 0;
    flush_output();
    if (!json)
      fail(ErrorKind::memory, "{} needs {}, {} {}: {}", model, size_text(e.total()),
           size_text(room), memory ? "are allowed" : "are free", fmt::join(advice, "; "));
    return static_cast<int>(ErrorKind::memory);
  }

  void report_text(const Estimate& e, std::uint64_t room, bool fits, const Numbers& numbers) const {
    for (const Part& p : e.parts)
      print(fmt::format("{:<20}{:>12}{}{}\n", p.name, size_text(p.bytes),
                        p.note.empty() ? "" : "   ", p.note));
    print(fmt::format("{:<20}{:>12}   of {} {}\n", "together", size_text(e.total()),
                      size_text(room), memory ? "allowed" : "free"));
    if (!fits) return;
    for (const auto& [key, value] : numbers)
      if (std::string_view(key) == "largest_context")
        print(fmt::format("It fits; the context may have up to {} tokens.\n", value));
    if (train) print("It fits.\n");
  }

  void report_json(const Estimate& e, std::uint64_t room, bool fits,
                   const std::vector<std::string>& advice, const Numbers& numbers) const {
    JsonWriter w;
    w.begin_object()
        .key("fits")
        .value(fits)
        .key("needed_bytes")
        .value(e.total())
        .key("available_bytes")
        .value(room);
    w.key("parts").begin_object();
    for (const Part& p : e.parts) w.key(p.key).value(p.bytes);
    w.end_object();
    for (const auto& [key, value] : numbers) w.key(key).value(value);
    w.key("advice").begin_array();
    for (const std::string& a : advice) w.value(a);
    print(w.end_array().end_object().text() + "\n");
  }
};

}  // namespace

COMMAND(fit, Fit)

}  // namespace supersonic::cli
