// One training run: steps, evaluations, checkpoints, early stopping, the loss log. What it prints is its observer's business.
// The run is a pure function of (model, data, settings): killed at any point and resumed from its newest checkpoint, it ends with
// the same bytes. Between the third step and a checkpoint nothing is allocated.
#pragma once
#include <functional>
#include <string>

#include "text/dataset_pack.h"
#include "train/trainer.h"
#include "train/loss_log.h"
#include "train/run_state.h"
#include "train/schedule.h"

namespace supersonic::train {

struct RunOptions {
  Schedule schedule;
  std::int64_t accumulate = 1;      // micro-batches per optimizer step
  std::int64_t eval_every = 0;      // steps; 0: before and after alone
  std::int64_t save_every = 0;      // steps; 0: at the end and when interrupted
  std::int64_t keep = 3;            // checkpoints
  std::int64_t patience = 0;        // evaluations without improvement before stopping; 0: never
  std::string folder;               // of checkpoints and log
  std::string resume = "auto";      // auto, none, or a checkpoint's path
  Settings settings;                // that a resumed run must share
};

struct RunResult {
  RunState state;
  bool interrupted = false, stopped_early = false;
  bool was_complete = false;        // an earlier run had done it all
  std::int64_t resumed_from = 0;

  // Over the whole of training, earlier runs included.
  double tokens_per_second() const { return state.seconds > 0 ? static_cast<double>(state.tokens) / state.seconds : 0; }
};

struct Observer {
  std::function<void()> start;        // the checkpoint, if any, is loaded; nothing was written yet
  std::function<void(const StepRecord&, double tokens_per_second)> step;
  std::function<void(const EvalRecord&)> eval;
  std::function<void(const std::string&)> note;
};

// eval may be null. The caller holds the folder's lock (io/folder_lock.h). Throws Error when data and settings do not fit a checkpoint
// that is resumed.
RunResult run_training(Trainer& trainer, text::Packed& train, text::Packed* eval, const RunOptions& options,
                       const Observer& observer);

}  // namespace supersonic::train
