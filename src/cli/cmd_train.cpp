// supersonic train: LoRA on a model file as it is (4-bit files stay 4-bit), from a file of conversations to an adapter; or all weights of
// a 16- or 32-bit model, to a model folder.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "cli/model_reference.h"
#include "cli/progress.h"
#include "core/device.h"
#include "core/format_into.h"
#include "core/interrupt.h"
#include "core/machine.h"
#include "io/folder_lock.h"
#include "io/output_file.h"
#include "models/adapter.h"
#include "models/export.h"
#include "text/tokenizer.h"
#include "train/data.h"
#include "train/report.h"
#include "train/run.h"

namespace supersonic::cli {
namespace {

constexpr std::int64_t kSequencesPerStep = 16;
constexpr const char* kStagedModel = ".model.partial";
constexpr double kAdapterRate = 2e-4, kFullRate = 2e-5;  // peak learning rates
constexpr double kLargestBeta = 0.999999;  // at 1, AdamW divides by 1 - beta = 0

struct Train : ComputeOptions {
  std::string model, data, eval_data, out = "outputs/adapter", adapter, base, resume = "auto", schedule = "cosine";
  std::string method = "lora", optimizer = "adamw", train_on = "responses";
  std::vector<std::string> targets;
  std::int64_t rank = 16, max_steps = 0, seq_len = 0, batch = 0, accumulate = 0, eval_samples = -1, eval_every = 0;
  std::int64_t save_every = 0, keep = 3, patience = 0, warmup = -1;
  double alpha = 32, epochs = 0;
  std::optional<double> lr;
  double weight_decay = 0.01, clip = 1.0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  std::uint64_t seed = 0;
  std::optional<Bytes> memory;
  bool packing = true, deterministic = false, dry_run = false, explain = false, json = false;

  static constexpr About about{
      .summary = "Fine-tune a model on your data, with LoRA or in full",
      .usage = "-m MODEL -d DATA -o OUT",
      .details =
          "DATA is .jsonl, .json or .txt, or a folder with train/valid files: messages, ShareGPT, alpaca, prompt/completion or text; "
          "which one is detected. The model stays in its file's format: a 4-bit file is trained on as it is (QLoRA). OUT receives a PEFT "
          "adapter, the loss curve (train_log.jsonl, report.html) and checkpoints. Ctrl-C saves and stops; the same command continues. "
          "--method full trains all weights of a 16- or 32-bit model instead, and OUT receives a model folder (safetensors, configuration, "
          "tokenizer): weights in bf16 are rounded stochastically after each step, gradients are fp32, norms and biases are trained in fp32; a "
          "weight takes 14 bytes with adamw and 8 with adamw-8bit, beside the activations.",
      .examples = "supersonic train -m model-q4_1.gguf -d chats.jsonl -o out/\n"
                  "supersonic train -m hf-folder/ --base nf4 -d chats.jsonl -o out/ --epochs 2 --lr 1e-4\n"
                  "supersonic train -m hf-folder/ --method full --optim adamw-8bit -d chats.jsonl -o tuned/\n"
                  "supersonic train -c train.yaml --max-steps 100",
      .alias = "finetune",
      .group = CommandGroup::work};

  void options(Options& o) {
    o.add("model", model, "GGUF file, Hugging Face folder, or OWNER/NAME[:TYPE] of a pulled model").letter('m').value("MODEL").model().required();
    o.add("data", data, "Training data: a file, or a folder with train/valid files").letter('d').value("DATA").required();
    o.add("out", out, "Where the adapter or the model, the curves and the checkpoints go").letter('o').value("DIR");
    o.add("eval-data", eval_data, "Held-out data; else a part of DATA is held out").value("DATA");
    o.add("adapter", adapter, "Continue from this adapter").value("DIR").model();
    o.add("method", method, "lora: an adapter beside the frozen model; full: all weights of a 16- or 32-bit model").choices({"lora", "full"});
    o.group("Adapter");
    o.add("rank", rank, "Rank of the adapter's matrices").letter('r').range(1, 4096);
    o.add("alpha", alpha, "Scale of the adapter: alpha / rank").at_least(0);
    declare_targets(o, targets);
    o.add("base", base, "Quantize 16-bit weights to this while loading").choices({"", "nf4", "q4_0", "q8_0"}).shown("as they are");
    o.group("Schedule");
    o.add("epochs", epochs, "Passes over the data").range(0, 1e6).shown("1 above 10,000 samples, else 3");
    o.add("max-steps", max_steps, "Stop after this many steps; 0: when the epochs are over").at_least(0);
    o.add("lr", lr, "Peak learning rate; auto: 2e-4, with --method full 2e-5").at_least(0);
    o.add("schedule", schedule, "Course of the learning rate").choices({"cosine", "linear", "constant"});
    o.add("warmup", warmup, "Steps of linear warm-up").at_least(-1).shown("3 %, at least 5");
    o.add("optim", optimizer, "Optimizer").choices({"adamw", "adamw-8bit"});
    o.add("weight-decay", weight_decay, "Decoupled weight decay").at_least(0);
    o.add("beta1", beta1, "AdamW's first moment").range(0, kLargestBeta);
    o.add("beta2", beta2, "AdamW's second moment").range(0, kLargestBeta);
    o.add("eps", eps, "AdamW's epsilon").at_least(0);
    o.add("clip", clip, "Largest gradient norm; 0: no clipping").at_least(0);
    o.group("Batches");
    o.add("seq-len", seq_len, "Tokens of a row").range(0, 1 << 20).shown("from the data, at most 2048");
    o.add("batch", batch, "Rows of a micro-batch").range(0, 1 << 16).shown("1");
    o.add("accum", accumulate, "Micro-batches of a step").range(0, 1 << 20).shown("about 16 samples a step");
    o.add("packing", packing, "Put several samples into a row; attention stays inside each");
    o.add("train-on", train_on, "What is learned").choices({"responses", "all"});
    o.group("Evaluation and checkpoints");
    o.add("eval-split", eval_samples, "Samples held out").at_least(-1).shown("5 %, at most 200, of 200 samples or more");
    o.add("eval-every", eval_every, "Steps between evaluations; 0: before and after").at_least(0);
    o.add("early-stop", patience, "Stop after this many evaluations without improvement; 0: never").at_least(0);
    o.add("save-every", save_every, "Steps between checkpoints; 0: at the end").at_least(0);
    o.add("keep", keep, "Checkpoints kept").at_least(1);
    o.add("resume", resume, "auto, none, or a checkpoint").value("HOW");
    o.group("Machine");
    ComputeOptions::options(o);
    declare_device(o);
    o.add("memory", memory, "Memory the run may take in all (8GiB), on a GPU beside its bare context; what does not fit is recomputed; auto: most of what is free");
    o.add("seed", seed, "Seed of the order and the first adapter");
    o.add("deterministic", deterministic, "Repeat every bit when run again: this is always so here, and the option changes nothing").flag_only();
    o.add("dry-run", dry_run, "Check the data and plan the memory; train nothing").flag_only();
    o.add("explain", explain, "Print the plan of a step; train nothing").flag_only();
    declare_json(o, json);
  }

  bool full() const { return method == "full"; }
  double rate() const { return lr.value_or(full() ? kFullRate : kAdapterRate); }

  void check_method() const {
    if (!full()) return;
    if (!adapter.empty())
      fail(ErrorKind::usage, "train: --method full trains the weights of a model, not an adapter: merge it first (supersonic merge), or use --method lora");
    if (!base.empty()) fail(ErrorKind::usage, "train: --base {} freezes weights in 4 or 8 bits, which --method full cannot train: use --method lora, or leave --base out", base);
    if (!targets.empty()) fail(ErrorKind::usage, "train: --targets chooses layers for an adapter, and --method full trains all weights: leave one of them out");
    std::error_code none;
    if (std::filesystem::equivalent(model, out, none))
      fail(ErrorKind::usage, "train: --out {} is the model's own folder, whose weights would be replaced: name another one", out);
    if (compute == "fp8") fail(ErrorKind::usage, "train: --compute fp8 is for frozen weights, and --method full trains all of them: use --compute bf16");
  }

  // --- the parts of a run -----------------------------------------------------------------------------------------------------

  train::TrainingData read_data(const text::ModelText& source, const text::Tokenizer& tokenizer) const {
    train::DataOptions d;
    d.data = data;
    d.eval_data = eval_data;
    d.train_on_all = train_on == "all";
    d.seq_len = seq_len;
    d.eval_samples = eval_samples;
    d.seed = seed;
    d.pack = packing;
    d.rows = std::max<std::int64_t>(1, batch);
    train::TrainingData t = train::load_training_data(source, tokenizer, d, error_is_terminal());
    log_info("{}", text::to_string(t.report));
    log_info("one sample as the model sees it, with what is learned marked:\n{}", t.example);
    return t;
  }

  train::RunOptions plan_run(const train::TrainingData& t, Compute arithmetic) const {
    const std::int64_t row_tokens = t.seq_len * std::max<std::int64_t>(1, batch);
    train::RunOptions r;
    r.accumulate = accumulate > 0 ? accumulate
                                  : std::max<std::int64_t>(1, std::llround(kSequencesPerStep * t.mean_length / static_cast<double>(row_tokens)));
    const double passes = epochs > 0 ? epochs : t.samples.size() > 10000 ? 1 : 3;
    const auto per_epoch = static_cast<double>(t.train->batches_per_epoch()) / static_cast<double>(r.accumulate);
    r.schedule.steps = max_steps > 0 ? max_steps : std::max<std::int64_t>(1, std::llround(passes * per_epoch));
    r.schedule.kind = schedule == "cosine" ? train::ScheduleKind::cosine : schedule == "linear" ? train::ScheduleKind::linear : train::ScheduleKind::constant;
    r.schedule.peak = rate();
    const std::int64_t automatic = std::max<std::int64_t>(5, std::llround(0.03 * static_cast<double>(r.schedule.steps)));
    r.schedule.warmup = std::min(warmup >= 0 ? warmup : automatic, r.schedule.steps / 2);
    r.eval_every = eval_every;
    r.save_every = save_every;
    r.keep = keep;
    r.patience = patience;
    if (patience > 0 && eval_every == 0) r.eval_every = std::max<std::int64_t>(1, r.schedule.steps / 10);
    r.folder = out;
    r.resume = resume;
    r.settings = settings(t, r, arithmetic);
    return r;
  }

  // What a run that continues another one must share with it, by the names of the options where there are any.
  train::Settings settings(const train::TrainingData& t, const train::RunOptions& r, Compute arithmetic) const {
    auto text = [](const auto& value) { return fmt::format("{}", value); };
    auto data_mark = [](const text::Packed& p) { return fmt::format("{} tokens ({:016x})", p.tokens(), p.fingerprint()); };
    train::Settings all = {{"model", model_label(model)}, {"data", data_mark(*t.train)}, {"held-out data", t.eval ? data_mark(*t.eval) : "none"}};
    const train::Settings of_method = full() ? train::Settings{{"method", method}}
                                             : train::Settings{{"adapter", adapter.empty() ? "none" : adapter},
                                                               {"base", base.empty() ? "as it is" : base},
                                                               {"targets", targets.empty() ? "all-linear" : fmt::format("{}", fmt::join(targets, ","))},
                                                               {"rank", text(rank)},
                                                               {"alpha", text(alpha)}};
    const train::Settings common = {{"steps", text(r.schedule.steps)},
                                    {"lr", text(rate())},
                                    {"schedule", schedule},
                                    {"warmup", text(r.schedule.warmup)},
                                    {"optim", optimizer},
                                    {"weight-decay", text(weight_decay)},
                                    {"beta1", text(beta1)},
                                    {"beta2", text(beta2)},
                                    {"eps", text(eps)},
                                    {"clip", text(clip)},
                                    {"seq-len", text(t.seq_len)},
                                    {"batch", text(std::max<std::int64_t>(1, batch))},
                                    {"accum", text(r.accumulate)},
                                    {"packing", text(packing)},
                                    {"train-on", train_on},
                                    {"early-stop", patience > 0 ? "on" : "off"},
                                    {"compute", std::string(name_of(arithmetic))},
                                    {"seed", text(seed)}};
    all.insert(all.end(), of_method.begin(), of_method.end());
    all.insert(all.end(), common.begin(), common.end());
    return all;
  }

  train::OptimizerOptions optimizer_options() const {
    train::OptimizerOptions o;
    o.eight_bit = optimizer == "adamw-8bit";
    o.beta1 = static_cast<float>(beta1);
    o.beta2 = static_cast<float>(beta2);
    o.eps = static_cast<float>(eps);
    o.weight_decay = static_cast<float>(weight_decay);
    o.max_grad_norm = static_cast<float>(clip);
    o.seed = seed;
    return o;
  }

  nn::LoraSet adapt(models::Model& m) const {
    if (!adapter.empty()) return models::attach_adapter(m, models::read_adapter(adapter, m), adapter, true);
    train::LoraOptions l;
    l.rank = rank;
    l.alpha = alpha;
    l.targets = targets;
    l.seed = seed;
    return train::make_lora(m, l, true);
  }

  void print_memory(const train::TrainMemory& m) const {
    auto mib = [](std::size_t b) { return static_cast<double>(b) / (1 << 20); };
    const std::size_t state = m.gradients + m.moments;
    const std::string kept = full() ? fmt::format("weights {:.0f} MiB, gradients and optimizer {:.0f} MiB", mib(m.parameters), mib(state))
                                    : fmt::format("weights {:.0f} MiB, adapter with optimizer {:.0f} MiB", mib(m.weights), mib(m.parameters + state));
    log_info("memory: {}, activations and workspace {:.0f} MiB ({}); {:.0f} MiB in all", kept, mib(m.arena), m.level, mib(m.total()));
    if (m.outside) log_info("page-locked host memory beside it: {:.0f} MiB", mib(m.outside));
  }

  void save_adapter(const models::Model& m, const nn::LoraSet& lora) const {
    io::LoraConfig config;
    config.rank = lora.slots.front().rank;
    config.alpha = static_cast<double>(lora.slots.front().scale) * static_cast<double>(config.rank);
    config.base_model = cached_name(model);
    if (config.base_model.empty()) config.base_model = m.config.name.empty() ? model_label(model) : m.config.name;
    models::write_adapter(out, m, models::extract_adapter(m, lora, config));
  }

  // The trained model as a folder, made beside and moved into OUT file by file when it is whole; the configuration, by which others find
  // a model there, comes last. One in f16 becomes bf16, as it was trained.
  void save_model(const models::Model& m, bool narrowed) const {
    namespace fs = std::filesystem;
    const fs::path staged = fs::path(out) / kStagedModel;
    fs::remove_all(staged);
    io::make_directories(staged.string());
    models::ExportOptions options{.type = narrowed ? "bf16" : "auto", .lora = nullptr, .shard_bytes = {}, .progress = {}};
    try {
      models::write_hf_model(m, staged.string(), options);
    } catch (...) {
      fs::remove_all(staged);
      throw;
    }
    for (const auto& entry : fs::directory_iterator(staged))
      if (entry.path().filename() != "config.json") move_into_place(entry.path());
    move_into_place(staged / "config.json");
    fs::remove(staged);
    io::sync_directory(out);
  }
  void move_into_place(const std::filesystem::path& from) const {
    const std::filesystem::path to = std::filesystem::path(out) / from.filename();
    if (std::filesystem::is_directory(to)) std::filesystem::remove_all(to);
    std::filesystem::rename(from, to);
  }

  void write_report(const Options& o, const train::RunResult& r, const train::TrainMemory& memory_use) const {
    train::Report report;
    report.title = fmt::format("{} on {}", model_label(model), std::filesystem::path(data).filename().string());
    const std::time_t now = std::time(nullptr);
    char date[32];
    std::strftime(date, sizeof date, "%Y-%m-%d %H:%M", std::localtime(&now));
    report.subtitle = fmt::format("{}, Supersonic {}", date, SUPERSONIC_VERSION);
    if (std::isfinite(r.state.eval_before))
      report.figures.push_back({"held-out loss", fmt::format("{:.3f} → {:.3f}", r.state.eval_before, r.state.eval_after)});
    report.figures.push_back({"steps", std::to_string(r.state.step)});
    report.figures.push_back({"tokens", std::to_string(r.state.tokens)});
    report.figures.push_back({"tokens/s", fmt::format("{:.0f}", r.tokens_per_second())});
    report.figures.push_back({"planned memory", fmt::format("{:.0f} MiB", static_cast<double>(memory_use.total()) / (1 << 20))});
    report.settings.push_back({"configuration", o.resolved_yaml()});
    train::write_report(out + "/report.html", report, train::read_loss_log(out + "/train_log.jsonl"));
  }

  void print_result(const train::RunResult& r, const train::TrainMemory& m, std::uint64_t taken) const {
    if (!json) {
      print(fmt::format("{} steps, {} tokens in {:.0f} s ({:.0f} tokens/s), peak memory {:.0f} MiB\n", r.state.step, r.state.tokens,
                        r.state.seconds, r.tokens_per_second(), static_cast<double>(taken) / (1 << 20)));
      if (std::isfinite(r.state.eval_after)) print(fmt::format("held-out loss {:.4f} -> {:.4f}\n", r.state.eval_before, r.state.eval_after));
      if (full())
        print(fmt::format("model: {0}  report: {0}/report.html\nchat with it: supersonic chat {0}\n", out));
      else
        print(fmt::format("adapter: {0}  report: {0}/report.html\nchat with it: supersonic chat {1} --adapter {0}\n", out, model));
      return;
    }
    JsonWriter w;
    w.begin_object();
    w.key("eval_before").begin_object().key("loss").value(r.state.eval_before).end_object();
    w.key("eval_after").begin_object().key("loss").value(r.state.eval_after).end_object();
    w.key("steps").value(r.state.step).key("resumed_from").value(r.resumed_from).key("complete").value(!r.interrupted);
    w.key("tokens").value(r.state.tokens).key("seconds").value(r.state.seconds);
    w.key("tokens_per_second").value(r.tokens_per_second()).key("peak_bytes").value(taken);
    w.key("planned_bytes").value(static_cast<std::uint64_t>(m.total())).key(full() ? "model" : "adapter").value(out);
    print(w.end_object().text() + "\n");
  }

  int run(Context& context) {
    if (out.empty()) fail(ErrorKind::usage, "train: --out is empty");
    while (out.size() > 1 && out.back() == '/') out.pop_back();
    if (out == "/") fail(ErrorKind::usage, "train: --out is the root folder: name one of its own for the adapter");
    check_method();
    const std::jthread opening = open_early();
    const text::ModelText source(model);
    const text::Tokenizer tokenizer = source.tokenizer();
    train::TrainingData t = read_data(source, tokenizer);
    const std::uint64_t program = peak_resident_bytes();
    models::Model m = load_and_warn(model, {base});
    models::check_context(m, t.seq_len);
    const bool narrowed = full() && std::ranges::any_of(train::weights_of(m), [](const StorageRef& s) { return s->spec.dtype == DType::f16; });
    nn::LoraSet lora;
    if (!full()) lora = adapt(m);
    train::Parameters parameters = full() ? train::plan_weights(m) : train::Parameters(lora);
    if (narrowed) log_info("the model is stored in f16: it is trained, and written, in bf16");
    Executor executor = make_executor();
    const Compute arithmetic = resolve_training(m);
    const TakenMemory taken(executor.backend());
    const train::RunOptions options = plan_run(t, arithmetic);
    const std::string steps = fmt::format("{} steps of {} x {} tokens, {} arithmetic, {} threads", options.schedule.steps, options.accumulate,
                                          t.seq_len * std::max<std::int64_t>(1, batch), name_of(arithmetic), executor.backend().threads());
    const std::int64_t tokens = t.seq_len * std::max<std::int64_t>(1, batch);
    const std::size_t budget = room(program, m, parameters, executor.backend());
    if (full()) {
      const train::TrainMemory planned = plan_full(m, parameters, executor.backend(), tokens, arithmetic, budget);
      if (dry_run && !explain) return print_memory(planned), log_info("{}", steps), 0;
      train::take_weights(m, parameters);
    } else {
      place_frozen(m, parameters, executor.backend(), tokens, arithmetic, budget);
    }
    train::Trainer trainer(m, parameters, executor, tokens, arithmetic, optimizer_options(), {.budget = budget});
    print_memory(trainer.memory());
    log_info("{}", steps);
    if (explain) return print(trainer.plan().explain()), 0;
    if (dry_run) return 0;

    io::make_directories(out);
    const io::FolderLock lock(out);
    io::remove_temporaries(out);
    InterruptGuard guard("\ninterrupted: saving a checkpoint (again to stop at once)\n");
    const train::RunResult r = train_with_progress(trainer, t, options, context.options);
    if (r.interrupted && r.state.step == 0) fail(ErrorKind::interrupted, "interrupted before the first step: nothing was saved");
    full() ? save_model(m, narrowed) : save_adapter(m, lora);
    write_report(context.options, r, trainer.memory());
    if (r.was_complete) say_complete(r, options);
    print_result(r, trainer.memory(), taken.bytes());
    flush_output();
    if (!r.interrupted) return guard.complete(0);
    guard.complete(static_cast<int>(ErrorKind::interrupted));
    fail(ErrorKind::interrupted, "interrupted after step {}: {} continues from there", r.state.step,
         resume == "auto" ? "the same command" : "the same command with --resume auto");
  }

  void say_complete(const train::RunResult& r, const train::RunOptions& options) const {
    const std::string where = r.stopped_early ? fmt::format("step {}, where it stopped early", r.state.step) : fmt::format("step {}", options.schedule.steps);
    log_info("this run was complete already, at {}: nothing was trained\nto train further: the same command with {} {} and another --out; "
             "to start anew here: --resume none", where, full() ? "-m" : "--adapter", out);
  }

  // What the run may take; on a CPU the weights of the best evaluation lie beside those that are trained.
  std::size_t room(std::uint64_t program, const models::Model& m, const train::Parameters& parameters, Backend& backend) const {
    const std::size_t all = training_budget(memory, program, m, backend);
    const bool copied = full() && patience > 0 && backend.compute_place() == Place{};
    return copied ? all - std::min(all, parameters.bytes()) : all;
  }

  // Before any weight is read: throws Error(memory) where the run will not fit.
  train::TrainMemory plan_full(const models::Model& m, const train::Parameters& parameters, Backend& backend, std::int64_t tokens, Compute arithmetic,
                               std::size_t budget) const {
    try {
      return train::planned_memory(m, parameters, backend, tokens, arithmetic, optimizer_options(), {.budget = budget});
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::memory) throw;
      fail(ErrorKind::memory, "{}\nAll {:.2f} billion weights are trained. {}An adapter (--method lora) takes a fraction of it.", e.what(),
           static_cast<double>(m.parameters()) / 1e9, optimizer == "adamw" ? "--optim adamw-8bit takes 6 bytes a weight less. " : "");
    }
  }

  // Where the frozen weights lie beside an adapter.
  void place_frozen(models::Model& m, const train::Parameters& parameters, Backend& backend, std::int64_t tokens, Compute arithmetic,
                    std::size_t budget) const {
    const models::Residence residence = train::choose_residence(m, parameters, backend, tokens, arithmetic, optimizer_options(), {.budget = budget});
    if (residence.dense) log_info("the weights of {} of {} layers are kept as bf16: there is memory for it", residence.dense, m.layers.size());
    if (residence.streamed)
      log_info("{} of {} layers stay in host memory and are streamed: page-locking them takes a moment", residence.streamed, m.layers.size());
    models::make_resident(m, backend, residence);
  }

  train::RunResult train_with_progress(train::Trainer& trainer, train::TrainingData& t, const train::RunOptions& options,
                                       const Options& given) {
    Progress progress("training", "step", static_cast<std::uint64_t>(options.schedule.steps));
    char note[96];
    train::Observer observer;
    observer.start = [&] { io::write_file(out + "/config.yaml", given.resolved_yaml()); };
    observer.step = [&](const train::StepRecord& s, double rate) {
      const std::size_t end = format_into(note, sizeof note, "loss {:.3f}  {:.0f} tok/s", s.loss, rate);
      progress.update(static_cast<std::uint64_t>(s.step), std::string_view(note, std::min(end, sizeof note)));
    };
    observer.eval = [&](const train::EvalRecord& e) {
      progress.clear();
      log_info("held-out loss {:.4f} after step {}", e.loss, e.step);
    };
    observer.note = [&](const std::string& text) { log_info("{}", text); };
    const train::RunResult r = train::run_training(trainer, *t.train, t.eval ? &*t.eval : nullptr, options, observer);
    progress.finish();
    return r;
  }
};

}  // namespace

COMMAND(train, Train)

}  // namespace supersonic::cli
