#include "train/run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "core/interrupt.h"
#include "io/checkpoint.h"
#include "io/mapped_file.h"
#include "io/output_file.h"

namespace supersonic::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

std::span<const std::byte> bytes_of_storage(const Storage& s) { return {s.as<std::byte>(), s.bytes}; }

bool finite(const Storage& s) {
  if (s.spec.dtype == DType::bf16)
    return std::ranges::all_of(s.values<const bf16>(), [](bf16 x) { return (x.bits & 0x7f80) != 0x7f80; });
  return std::ranges::all_of(s.values<const float>(), [](float x) { return std::isfinite(x); });
}

struct Runner {
  Trainer& trainer;
  text::Packed& train;
  text::Packed* eval;
  const RunOptions& o;
  const Observer& observer;
  RunState state;
  std::vector<StorageRef> best;  // the parameters of the best evaluation
  text::Batch batch, eval_batch;
  bool unsaved = false;  // something happened that the newest checkpoint does not have
  std::int64_t saved_step = 0;

  std::string root() const { return o.folder + "/checkpoints"; }

  // --- checkpoints --------------------------------------------------------------------------------------------------------------

  std::vector<std::pair<std::string, StorageRef>> arrays() const {
    auto all = trainer.state();
    for (std::size_t g = 0; g < best.size(); ++g) all.emplace_back(best[g]->name, best[g]);
    return all;
  }

  // A learning rate that is far too large, or --eps 0, gives values that no later step notices before they are saved.
  void check_values() const {
    for (const Parameters::Group& g : trainer.parameters().groups)
      CHECK(finite(*g.values),
            "step {}: the {} values that are no numbers, and {} not saved: use a lower --lr, a longer --warmup, or a larger --eps", state.step,
            trainer.parameters().whole() ? "weights hold" : "adapter holds", trainer.parameters().whole() ? "were" : "was");
  }

  void save(LossLog& log) {
    const auto all = arrays();
    check_values();
    // Checkpoints of later steps belong to a run that was given up; were they there after this one, a resumed run would take them.
    io::keep_newest(root(), SIZE_MAX, state.step);
    try {
      log.sync();  // what a checkpoint continues is as durable as it is
      io::CheckpointWriter writer(root(), state.step, to_checkpoint_config(state, o.settings));
      for (const auto& [name, s] : all) writer.write(name + ".bin", bytes_of_storage(*s));
      writer.commit();
    } catch (const Error& e) {
      fail(e.kind(), "{}\nThe checkpoint of step {} was not written; {}", e.what(), state.step,
           saved_step > 0 ? fmt::format("the one of step {} is whole, and the same command continues from there", saved_step)
                          : "there is none before it, so that the same command starts from the beginning");
    }
    unsaved = false;
    saved_step = state.step;
    io::keep_newest(root(), static_cast<std::size_t>(o.keep), state.step);
  }

  void load(const io::Checkpoint& c) {
    state = read_run_state(c, o.settings);
    CHECK_FILE(state.step <= o.schedule.steps, "{}: is of step {}, of a run of {} steps", c.path, state.step, o.schedule.steps);
    for (const auto& [name, s] : arrays()) {
      const io::MappedFile file = io::MappedFile::open(c.file(name + ".bin"));
      CHECK_FILE(file.bytes().size() == s->bytes, "{}: has {} bytes, this run needs {}", file.path(), file.bytes().size(), s->bytes);
      std::memcpy(s->as<void>(), file.bytes().data(), s->bytes);
    }
    trainer.state_written();
    saved_step = state.step;
    if (!complete()) observer.note(fmt::format("continuing after step {} of {} ({})", state.step, o.schedule.steps, c.path));
  }

  void resume() {
    if (o.resume == "none") return;
    if (o.resume != "auto") return load(io::open_checkpoint(o.resume));
    const auto found = io::newest_checkpoint(root());
    for (const auto& w : found.warnings) observer.note(w);
    if (found.newest) load(*found.newest);
  }

  // --- evaluation ---------------------------------------------------------------------------------------------------------------

  double evaluate() {
    double nll = 0;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < eval->batches_per_epoch(); ++i) {
      eval->fill(i, eval_batch, false);
      nll += trainer.evaluate(eval_batch);
      count += eval_batch.trained;
      check_interrupt();
    }
    return nll / static_cast<double>(std::max<std::int64_t>(1, count));
  }

  bool out_of_patience() const { return o.patience > 0 && state.worse >= o.patience; }
  bool evaluation_due() const {
    if (!eval || state.evaluated == state.step) return false;
    return state.step == 0 || state.step == o.schedule.steps || (o.eval_every > 0 && state.step % o.eval_every == 0);
  }
  bool complete() const { return !evaluation_due() && (state.step >= o.schedule.steps || out_of_patience()); }

  void evaluate_now(LossLog& log) {
    state.eval_after = evaluate();
    state.evaluated = state.step;
    unsaved = true;
    const EvalRecord record{state.step, state.eval_after};
    log.write(record);
    observer.eval(record);
    if (state.step == 0) state.eval_before = state.eval_after;
    if (state.eval_after < state.best_eval) {
      state.best_eval = state.eval_after;
      state.best_step = state.step;
      state.worse = 0;
      keep_best();
    } else if (state.step > 0) {
      ++state.worse;
    }
  }

  void make_best() {
    for (const Parameters::Group& g : trainer.parameters().groups)
      best.push_back(Storage::make(g.values->spec, trainer.parameters().whole() ? "best_" + g.name : "best"));
  }
  void keep_best() {
    if (best.empty()) return;
    trainer.bring_home();
    for (std::size_t g = 0; g < best.size(); ++g) std::memcpy(best[g]->as<void>(), trainer.parameters().groups[g].values->as<void>(), best[g]->bytes);
  }
  // What is exported is the best evaluation's; the state of the checkpoints stays the last step's.
  void take_best() {
    for (std::size_t g = 0; g < best.size(); ++g) std::memcpy(trainer.parameters().groups[g].values->as<void>(), best[g]->as<void>(), best[g]->bytes);
    observer.note(fmt::format("keeping the {} of step {}, the best evaluation", trainer.parameters().whole() ? "weights" : "adapter", state.best_step));
    state.eval_after = state.best_eval;
  }

  // --- steps --------------------------------------------------------------------------------------------------------------------

  StepRecord one_step() {
    const auto begin = Clock::now();
    const std::int64_t first = state.step * o.accumulate;
    std::int64_t trained = 0, tokens = 0;
    // The gradient is the mean over the trained tokens of the whole step, so they are counted first.
    for (std::int64_t i = 0; i < o.accumulate; ++i) {
      train.fill(first + i, batch);
      trained += batch.trained;
    }
    const float scale = trained > 0 ? 1.0f / static_cast<float>(trained) : 0.0f;
    double loss = 0;
    for (std::int64_t i = 0; i < o.accumulate; ++i) {
      if (o.accumulate > 1) train.fill(first + i, batch);
      loss += trainer.accumulate(batch, scale);
      tokens += batch.tokens;
    }
    ++state.step;
    unsaved = true;
    state.tokens += tokens;
    StepRecord r;
    r.step = state.step;
    r.learning_rate = o.schedule.at(state.step);
    r.grad_norm = trainer.step(state.step, static_cast<float>(r.learning_rate));
    state.seconds += seconds_since(begin);
    r.seconds = state.seconds;
    r.loss = loss;
    r.epoch = static_cast<double>(state.step * o.accumulate) / static_cast<double>(train.batches_per_epoch());
    r.tokens = state.tokens;
    CHECK(std::isfinite(loss) && std::isfinite(r.grad_norm),
          "step {}: the loss is no longer a number: use a lower --lr, a longer --warmup, or --clip 1", state.step);
    return r;
  }

  // Evaluation, checkpoint and step take turns, so that a checkpoint of a step has that step's evaluation, and a run that was
  // interrupted in an evaluation begins with it.
  void advance(LossLog& log) {
    const RunState begin = state;
    while (true) {
      if (evaluation_due()) evaluate_now(log);
      if (unsaved && o.save_every > 0 && state.step > 0 && state.step % o.save_every == 0) save(log);
      if (complete()) return;
      check_interrupt();
      const StepRecord r = one_step();
      log.write(r);
      observer.step(r, static_cast<double>(state.tokens - begin.tokens) / (state.seconds - begin.seconds));
    }
  }

  RunResult run() {
    io::remove_unfinished(root());
    RunResult result;
    batch = train.make_batch();
    if (eval) eval_batch = eval->make_batch();
    if (o.patience > 0) make_best();
    resume();
    result.resumed_from = state.step;
    result.was_complete = complete();
    observer.start();
    LossLog log(o.folder + "/train_log.jsonl", state.step);
    try {
      advance(log);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::interrupted) throw;
      result.interrupted = true;
    }
    if (unsaved && state.step > 0) save(log);
    result.stopped_early = !result.interrupted && state.step < o.schedule.steps;
    trainer.bring_home();  // where it is exported from
    if (!result.interrupted && !best.empty() && state.best_step > 0 && state.best_step != state.step) take_best();
    result.state = state;
    return result;
  }
};

}  // namespace

RunResult run_training(Trainer& trainer, text::Packed& train, text::Packed* eval, const RunOptions& options,
                       const Observer& observer) {
  io::make_directories(options.folder);
  return Runner{trainer, train, eval, options, observer, {}, {}, {}, {}}.run();
}

}  // namespace supersonic::train
