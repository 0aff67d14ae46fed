// What a checkpoint says of a run beside its arrays: how far it has come, and the settings that
// whoever continues it must share. Doubles are kept as bits, so that a resumed run goes on with the
// very same numbers.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint.h"

namespace supersonic::train {

// Name and value as people know them ("lr", "0.0002"); the names are unique.
using Settings = std::vector<std::pair<std::string, std::string>>;

struct RunState {
  std::int64_t step = 0, tokens = 0;
  double seconds = 0;           // of the steps alone, earlier runs included
  std::int64_t evaluated = -1;  // the step of the last evaluation; -1: none yet
  double eval_before = std::numeric_limits<double>::quiet_NaN(), eval_after = eval_before;
  double best_eval = std::numeric_limits<double>::infinity();
  std::int64_t best_step = 0, worse = 0;
};

std::string to_checkpoint_config(const RunState& state, const Settings& settings);
// Throws Error(usage) that lists the settings that differ, Error(bad_file) where the checkpoint's
// configuration is none of a training run.
RunState read_run_state(const io::Checkpoint& checkpoint, const Settings& settings);

}  // namespace supersonic::train
