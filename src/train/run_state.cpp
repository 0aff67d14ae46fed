// JSON in the checkpoint's manifest; see the header.
#include "train/run_state.h"

#include <bit>
#include <charconv>

#include "core/error.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::train {
namespace {

// The doubles of a state by name, for both directions.
constexpr std::pair<const char*, double RunState::*> kReals[] = {
    {"seconds", &RunState::seconds},
    {"eval_before", &RunState::eval_before},
    {"eval_after", &RunState::eval_after},
    {"best_eval", &RunState::best_eval},
};
constexpr std::pair<const char*, std::int64_t RunState::*> kIntegers[] = {
    {"tokens", &RunState::tokens},
    {"evaluated", &RunState::evaluated},
    {"best_step", &RunState::best_step},
    {"worse", &RunState::worse},
};

void check_settings(const io::JsonFields& there, const Settings& here, const std::string& path) {
  std::string differences;
  for (const auto& [name, value] : here) {
    const std::string old = there.string(name.c_str()).value_or("");
    if (old == value) continue;
    differences += fmt::format("\n  {}: {} there, {} now", name, old.empty() ? "nothing" : old,
                               value.empty() ? "nothing" : value);
  }
  if (differences.empty()) return;
  fail(ErrorKind::usage,
       "{}: was written with other data or settings:{}\nGive the same ones to continue that run, "
       "another output for a new one, or --resume none to start anew here",
       path, differences);
}

}  // namespace

std::string to_checkpoint_config(const RunState& state, const Settings& settings) {
  io::JsonTree j, all;
  for (const auto& [name, member] : kIntegers) j.set(name, state.*member);
  for (const auto& [name, member] : kReals)
    j.set(name, fmt::format("{:016x}", std::bit_cast<std::uint64_t>(state.*member)));
  for (const auto& [name, value] : settings) all.set(name, value);
  if (!settings.empty()) j.set("settings", all);
  return j.dump(-1, io::JsonTree::Utf8::replace);
}

RunState read_run_state(const io::Checkpoint& checkpoint, const Settings& settings) {
  const io::JsonDocument config(checkpoint.config_json, checkpoint.path);
  const io::JsonFields fields(config, checkpoint.path, "config.");
  if (!fields.has("settings")) fields.bad("settings", "a training run's settings");
  check_settings(fields.object("settings"), settings, checkpoint.path);
  RunState state;
  state.step = checkpoint.step;
  for (const auto& [name, member] : kIntegers)
    state.*member = fields.require_integer(name, -1, INT64_MAX);
  for (const auto& [name, member] : kReals) {
    const std::string hex = fields.string(name).value_or("");
    std::uint64_t bits = 0;
    const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), bits, 16);
    if (error != std::errc() || end != hex.data() + hex.size())
      fields.bad(name, "the bits of a double as hexadecimal digits");
    state.*member = std::bit_cast<double>(bits);
  }
  return state;
}

}  // namespace supersonic::train
