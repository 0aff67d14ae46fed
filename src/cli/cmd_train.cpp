// supersonic train: LoRA on a model file as it is (4-bit files stay 4-bit), from a file of conversations to an adapter.
#include <fmt/format.h>

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
#include "text/tokenizer.h"
#include "train/data.h"
#include "train/report.h"
#include "train/run.h"

namespace supersonic::cli {
namespace {

constexpr std::int64_t kSequencesPerStep = 16;
constexpr double kLargestBeta = 0.999999;  // at 1, AdamW divides by 1 - beta = 0

struct Train : ComputeOptions {
  std::string model, data, eval_data, out = "outputs/adapter", adapter, base, resume = "auto", schedule = "cosine";
  std::string optimizer = "adamw", train_on = "responses";
  std::vector<std::string> targets;
  std::int64_t rank = 16, max_steps = 0, seq_len = 0, batch = 0, accumulate = 0, eval_samples = -1, eval_every = 0;
  std::int64_t save_every = 0, keep = 3, patience = 0, warmup = -1;
  double alpha = 32, epochs = 0;
  double lr = 2e-4, weight_decay = 0.01, clip = 1.0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  std::uint64_t seed = 0;
  std::optional<Bytes> memory;
  bool packing = true, dry_run = false, explain = false, json = false;

  static constexpr About about{
      .summary = "Fine-tune a model with LoRA on your data",
      .usage = "-m MODEL -d DATA -o OUT",
      .details =
          "DATA is .jsonl, .json or .txt, or a folder with train/valid files: messages, ShareGPT, alpaca, prompt/completion or text; "
          "which one is detected. The model stays in its file's format: a 4-bit file is trained on as it is (QLoRA). OUT receives a PEFT "
          "adapter, the loss curve (train_log.jsonl, report.html) and checkpoints. Ctrl-C saves and stops; the same command continues.",
      .examples = "supersonic train -m model-q4_1.gguf -d chats.jsonl -o out/\n"
                  "supersonic train -m hf-folder/ --base nf4 -d chats.jsonl -o out/ --epochs 2 --lr 1e-4\n"
                  "supersonic train -c train.yaml --max-steps 100",
      .alias = "finetune",
      .group = CommandGroup::work};

  void options(Options& o) {
    o.add("model", model, "GGUF file, Hugging Face folder, or OWNER/NAME[:TYPE] of a pulled model").letter('m').value("MODEL").model().required();
    o.add("data", data, "Training data: a file, or a folder with train/valid files").letter('d').value("DATA").required();
    o.add("out", out, "Where the adapter, the curves and the checkpoints go").letter('o').value("DIR");
    o.add("eval-data", eval_data, "Held-out data; else a part of DATA is held out").value("DATA");
    o.add("adapter", adapter, "Continue from this adapter").value("DIR").model();
    o.group("Adapter");
    o.add("rank", rank, "Rank of the adapter's matrices").letter('r').range(1, 4096);
    o.add("alpha", alpha, "Scale of the adapter: alpha / rank").at_least(0);
    o.add("targets", targets, "Linear layers to adapt (q_proj, …); all seven when empty").commas().shown("all-linear");
    o.add("base", base, "Quantize 16-bit weights to this while loading").choices({"", "nf4", "q4_0", "q8_0"}).shown("as they are");
    o.group("Schedule");
    o.add("epochs", epochs, "Passes over the data").range(0, 1e6).shown("1 above 10,000 samples, else 3");
    o.add("max-steps", max_steps, "Stop after this many steps; 0: when the epochs are over").at_least(0);
    o.add("lr", lr, "Peak learning rate").at_least(0);
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
    o.add("dry-run", dry_run, "Check the data and plan the memory; train nothing").flag_only();
    o.add("explain", explain, "Print the plan of a step; train nothing").flag_only();
    declare_json(o, json);
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
    r.schedule.peak = lr;
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
    return {{"model", model_label(model)},
            {"data", data_mark(*t.train)},
            {"held-out data", t.eval ? data_mark(*t.eval) : "none"},
            {"adapter", adapter.empty() ? "none" : adapter},
            {"base", base.empty() ? "as it is" : base},
            {"targets", targets.empty() ? "all-linear" : fmt::format("{}", fmt::join(targets, ","))},
            {"rank", text(rank)},
            {"alpha", text(alpha)},
            {"steps", text(r.schedule.steps)},
            {"lr", text(lr)},
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
  }

  train::OptimizerOptions optimizer_options() const {
    train::OptimizerOptions o;
    o.eight_bit = optimizer == "adamw-8bit";
    o.beta1 = static_cast<float>(beta1);
    o.beta2 = static_cast<float>(beta2);
    o.eps = static_cast<float>(eps);
    o.weight_decay = static_cast<float>(weight_decay);
    o.max_grad_norm = static_cast<float>(clip);
    return o;
  }

  nn::LoraSet adapt(models::Model& m) const {
    if (!adapter.empty()) return models::attach_adapter(m, models::read_adapter(adapter, m), adapter, true);
    train::LoraOptions l;
    l.rank = rank;
    l.alpha = alpha;
    l.targets = targets;
    if (l.targets.size() == 1 && l.targets[0] == "all-linear") l.targets.clear();
    l.seed = seed;
    return train::make_lora(m, l, true);
  }

  void print_memory(const train::TrainMemory& m) const {
    auto mib = [](std::size_t b) { return static_cast<double>(b) / (1 << 20); };
    log_info("memory: weights {:.0f} MiB, adapter with optimizer {:.0f} MiB, activations and workspace {:.0f} MiB ({}); {:.0f} MiB in all",
             mib(m.weights), mib(m.adapter + m.gradients + m.moments), mib(m.arena), m.level, mib(m.total()));
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

  void print_result(const train::RunResult& r, const train::TrainMemory& m) const {
    if (!json) {
      print(fmt::format("{} steps, {} tokens in {:.0f} s ({:.0f} tokens/s), peak memory {:.0f} MiB\n", r.state.step, r.state.tokens,
                        r.state.seconds, r.tokens_per_second(), static_cast<double>(peak_resident_bytes()) / (1 << 20)));
      if (std::isfinite(r.state.eval_after)) print(fmt::format("held-out loss {:.4f} -> {:.4f}\n", r.state.eval_before, r.state.eval_after));
      print(fmt::format("adapter: {0}  report: {0}/report.html\nchat with it: supersonic chat {1} --adapter {0}\n", out, model));
      return;
    }
    JsonWriter w;
    w.begin_object();
    w.key("eval_before").begin_object().key("loss").value(r.state.eval_before).end_object();
    w.key("eval_after").begin_object().key("loss").value(r.state.eval_after).end_object();
    w.key("steps").value(r.state.step).key("resumed_from").value(r.resumed_from).key("complete").value(!r.interrupted);
    w.key("tokens").value(r.state.tokens).key("seconds").value(r.state.seconds);
    w.key("tokens_per_second").value(r.tokens_per_second()).key("peak_bytes").value(peak_resident_bytes());
    w.key("planned_bytes").value(static_cast<std::uint64_t>(m.total())).key("adapter").value(out);
    print(w.end_object().text() + "\n");
  }

  int run(Context& context) {
    if (out.empty()) fail(ErrorKind::usage, "train: --out is empty");
    while (out.size() > 1 && out.back() == '/') out.pop_back();
    if (out == "/") fail(ErrorKind::usage, "train: --out is the root folder: name one of its own for the adapter");
    const std::jthread opening = open_early();
    const text::ModelText source(model);
    const text::Tokenizer tokenizer = source.tokenizer();
    train::TrainingData t = read_data(source, tokenizer);
    const std::uint64_t program = peak_resident_bytes();
    models::Model m = load_and_warn(model, {base});
    models::check_context(m, t.seq_len);
    nn::LoraSet lora = adapt(m);
    Executor executor = make_executor();
    const Compute arithmetic = resolve_training(m);
    const train::RunOptions options = plan_run(t, arithmetic);
    const std::size_t budget = training_budget(memory, program, m, executor.backend());
    const std::int64_t tokens = t.seq_len * std::max<std::int64_t>(1, batch);
    const models::Residence residence =
        train::choose_residence(m, lora, executor.backend(), tokens, arithmetic, optimizer_options(), {.budget = budget});
    if (residence.streamed)
      log_info("{} of {} layers stay in host memory and are streamed: page-locking them takes a moment", residence.streamed, m.layers.size());
    models::make_resident(m, executor.backend(), residence);
    train::LoraTrainer trainer(m, lora, executor, tokens, arithmetic, optimizer_options(), {.budget = budget});
    print_memory(trainer.memory());
    log_info("{} steps of {} x {} tokens, {} arithmetic, {} threads", options.schedule.steps, options.accumulate,
             t.seq_len * std::max<std::int64_t>(1, batch), name_of(arithmetic), executor.backend().threads());
    if (explain) return print(trainer.plan().explain()), 0;
    if (dry_run) return 0;

    io::make_directories(out);
    const io::FolderLock lock(out);
    io::remove_temporaries(out);
    InterruptGuard guard("\ninterrupted: saving a checkpoint (again to stop at once)\n");
    const train::RunResult r = train_with_progress(trainer, t, options, context.options);
    if (r.interrupted && r.state.step == 0) fail(ErrorKind::interrupted, "interrupted before the first step: nothing was saved");
    save_adapter(m, lora);
    write_report(context.options, r, trainer.memory());
    if (r.was_complete) say_complete(r, options);
    print_result(r, trainer.memory());
    flush_output();
    if (!r.interrupted) return guard.complete(0);
    guard.complete(static_cast<int>(ErrorKind::interrupted));
    fail(ErrorKind::interrupted, "interrupted after step {}: {} continues from there", r.state.step,
         resume == "auto" ? "the same command" : "the same command with --resume auto");
  }

  void say_complete(const train::RunResult& r, const train::RunOptions& options) const {
    const std::string where = r.stopped_early ? fmt::format("step {}, where it stopped early", r.state.step) : fmt::format("step {}", options.schedule.steps);
    log_info("this run was complete already, at {}: nothing was trained\nto train further: the same command with --adapter {} and another --out; "
             "to start anew here: --resume none", where, out);
  }

  train::RunResult train_with_progress(train::LoraTrainer& trainer, train::TrainingData& t, const train::RunOptions& options,
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
