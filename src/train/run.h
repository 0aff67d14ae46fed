// One training run: steps, evaluations, checkpoints, early stopping, the loss log. What it prints is its observer's business.
// The run is a pure function of (model, data, settings): killed at any point and resumed from its newest checkpoint, it ends with
// the same bytes. Between the third step and a checkpoint nothing is allocated.
#pragma once
#include <functional>
#include <limits>
#include <string>

#include "text/dataset_pack.h"
#include "train/lora_trainer.h"
#include "train/loss_log.h"
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
  std::string identity;             // settings that a resumed run must share
};

struct RunState {
  std::int64_t step = 0, tokens = 0;
  double eval_before = std::numeric_limits<double>::quiet_NaN(), eval_after = eval_before;
  double best_eval = std::numeric_limits<double>::infinity();
  std::int64_t best_step = 0, worse = 0;
};

struct RunResult {
  RunState state;
  double seconds = 0, tokens_per_second = 0;  // of the steps alone
  bool interrupted = false, stopped_early = false;
  std::int64_t resumed_from = 0;
};

struct Observer {
  std::function<void(const StepRecord&, double tokens_per_second)> step;
  std::function<void(const EvalRecord&)> eval;
  std::function<void(const std::string&)> note;
};

// eval may be null. Throws Error when data and settings do not fit a checkpoint that is resumed.
RunResult run_training(LoraTrainer& trainer, text::Packed& train, text::Packed* eval, const RunOptions& options,
                       const Observer& observer);

}  // namespace supersonic::train
