#include "train/run.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/interrupt.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/output_file.h"

namespace supersonic::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

std::span<const std::byte> bytes_of_storage(const Storage& s) { return {s.as<std::byte>(), s.bytes}; }

std::string checkpoint_config(const RunState& s, const RunOptions& o) {
  nlohmann::json j;
  j["identity"] = o.identity;
  j["tokens"] = s.tokens;
  j["best_step"] = s.best_step;
  j["worse"] = s.worse;
  // Doubles as bits: a resumed run must continue with the very same numbers.
  auto bits = [](double x) { return std::bit_cast<std::uint64_t>(x); };
  j["eval_before"] = bits(s.eval_before);
  j["eval_after"] = bits(s.eval_after);
  j["best_eval"] = bits(s.best_eval);
  return j.dump();
}

struct Runner {
  LoraTrainer& trainer;
  text::Packed& train;
  text::Packed* eval;
  const RunOptions& o;
  const Observer& observer;
  RunState state;
  StorageRef best;  // the adapter of the best evaluation
  text::Batch batch, eval_batch;

  std::string root() const { return o.folder + "/checkpoints"; }

  std::vector<std::pair<std::string, StorageRef>> saved() const {
    auto all = trainer.state();
    if (best) all.emplace_back("best", best);
    return all;
  }

  void save() {
    io::CheckpointWriter writer(root(), state.step, checkpoint_config(state, o));
    for (const auto& [name, s] : saved()) writer.write(name + ".bin", bytes_of_storage(*s));
    writer.commit();
    io::keep_newest(root(), static_cast<std::size_t>(o.keep));
  }

  void load(const io::Checkpoint& c) {
    const auto j = io::parse_json(c.config_json, c.path);
    CHECK_FILE(j.at("identity") == o.identity,
               "{}: was written with other data or settings: give the same ones to continue, or --resume none to start anew", c.path);
    for (const auto& [name, s] : saved()) {
      const std::string content = io::read_file(c.file(name + ".bin"), s->bytes + 1);
      CHECK_FILE(content.size() == s->bytes, "{}: {}.bin has {} bytes, this run needs {}", c.path, name, content.size(), s->bytes);
      std::memcpy(s->as<void>(), content.data(), s->bytes);
    }
    auto number = [&](const char* key) { return std::bit_cast<double>(j.at(key).get<std::uint64_t>()); };
    state.step = c.step;
    state.tokens = j.at("tokens");
    state.best_step = j.at("best_step");
    state.worse = j.at("worse");
    state.eval_before = number("eval_before");
    state.eval_after = number("eval_after");
    state.best_eval = number("best_eval");
  }

  void resume() {
    if (o.resume == "none") return;
    if (o.resume != "auto") return load(io::open_checkpoint(o.resume));
    if (!std::filesystem::exists(root())) return;
    const auto found = io::newest_checkpoint(root());
    for (const auto& w : found.warnings) observer.note(w);
    if (found.newest) load(*found.newest);
  }

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

  // Returns false when patience has run out.
  bool note_evaluation(LossLog& log) {
    state.eval_after = evaluate();
    const EvalRecord record{state.step, state.eval_after};
    log.write(record);
    observer.eval(record);
    if (state.eval_after < state.best_eval) {
      state.best_eval = state.eval_after;
      state.best_step = state.step;
      state.worse = 0;
      if (best) std::memcpy(best->as<void>(), trainer.lora().values->as<void>(), best->bytes);
    } else {
      ++state.worse;
    }
    return o.patience == 0 || state.worse < o.patience;
  }

  StepRecord one_step() {
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
    state.tokens += tokens;
    StepRecord r;
    r.step = state.step;
    r.learning_rate = o.schedule.at(state.step);
    r.grad_norm = trainer.step(state.step, static_cast<float>(r.learning_rate));
    r.loss = loss;
    r.epoch = static_cast<double>(state.step * o.accumulate) / static_cast<double>(train.batches_per_epoch());
    r.tokens = state.tokens;
    CHECK(std::isfinite(loss) && std::isfinite(r.grad_norm),
          "step {}: the loss is no longer a number: use a lower --lr, a longer --warmup, or --clip 1", state.step);
    return r;
  }

  RunResult run() {
    RunResult result;
    batch = train.make_batch();
    if (eval) eval_batch = eval->make_batch();
    if (o.patience > 0) best = Storage::make(trainer.lora().values->spec, "best adapter");
    resume();
    result.resumed_from = state.step;
    LossLog log(o.folder + "/train_log.jsonl", state.step);
    bool go_on = true, saved_last = state.step > 0;
    try {
      if (eval && state.step == 0) {
        note_evaluation(log);
        state.eval_before = state.eval_after;
        state.worse = 0;
      }
      const auto begin = Clock::now();
      const std::int64_t tokens_before = state.tokens;
      double aside = 0;  // seconds spent on evaluations and checkpoints
      while (go_on && state.step < o.schedule.steps) {
        check_interrupt();
        const StepRecord r = one_step();
        saved_last = false;
        log.write(r);
        result.seconds = seconds_since(begin) - aside;
        result.tokens_per_second = static_cast<double>(state.tokens - tokens_before) / result.seconds;
        observer.step(r, result.tokens_per_second);
        const auto pause = Clock::now();
        if (eval && o.eval_every > 0 && state.step % o.eval_every == 0 && state.step < o.schedule.steps) go_on = note_evaluation(log);
        if (o.save_every > 0 && state.step % o.save_every == 0) {
          save();
          saved_last = true;
        }
        aside += seconds_since(pause);
      }
      result.stopped_early = !go_on;
      if (eval && go_on && result.resumed_from < o.schedule.steps) note_evaluation(log);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::interrupted) throw;
      result.interrupted = true;
    }
    if (!saved_last && state.step > 0) save();
    if (!result.interrupted && best && state.best_step > 0 && state.best_step != state.step) {
      std::memcpy(trainer.lora().values->as<void>(), best->as<void>(), best->bytes);
      observer.note(fmt::format("keeping the adapter of step {}, the best evaluation", state.best_step));
      state.eval_after = state.best_eval;
    }
    result.state = state;
    return result;
  }
};

}  // namespace

RunResult run_training(LoraTrainer& trainer, text::Packed& train, text::Packed* eval, const RunOptions& options,
                       const Observer& observer) {
  io::make_directories(options.folder);
  return Runner{trainer, train, eval, options, observer, {}, {}, {}, {}}.run();
}

}  // namespace supersonic::train
