// The training report: one HTML file with the loss curve as SVG, the schedule, the gradient norm,
// the settings and the final figures. It needs no script and no network, follows the reader's light
// or dark setting, and prints well.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "train/loss_log.h"

namespace supersonic::train {

struct Report {
  using Rows = std::vector<std::pair<std::string, std::string>>;
  std::string title;     // "SmolLM2-135M-Instruct on docstrings.jsonl"
  std::string subtitle;  // date, host, version
  Rows figures;          // shown large: {"held-out loss", "4.16 → 2.65"}
  Rows settings;         // the resolved configuration
  std::vector<std::pair<std::string, Rows>>
      samples;  // answers before and after, by prompt: {"before", "…"}
};

std::string render_report(const Report& report, const LossCurve& curve);

// Atomic: a reader never sees half a file. Throws Error(failure).
void write_report(const std::string& path, const Report& report, const LossCurve& curve);

}  // namespace supersonic::train
