// Learning rate over a run: linear warm-up from 0, then cosine to a tenth, linear to 0, or constant.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace supersonic::train {

enum class ScheduleKind : std::uint8_t { cosine, linear, constant };

struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 2e-4;
  std::int64_t warmup = 0, steps = 1;  // in optimizer steps

  // step counts from 1.
  double at(std::int64_t step) const {
    if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
    const double done = static_cast<double>(step - 1 - warmup) / static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
    switch (kind) {
      case ScheduleKind::cosine: return peak * (0.1 + 0.45 * (1 + std::cos(3.14159265358979323846 * std::min(1.0, done))));
      case ScheduleKind::linear: return peak * std::max(0.0, 1 - done);
      default: return peak;
    }
  }
};

}  // namespace supersonic::train
