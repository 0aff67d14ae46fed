// How long work takes on this machine at its best: the shortest of several runs.
#pragma once
#include <algorithm>
#include <chrono>

namespace supersonic {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// After one run that does not count: at least three, and for `budget` seconds.
template <class F>
double best_seconds(F f, double budget) {
  f();
  double best = 1e9;
  const double end = now() + budget;
  for (int i = 0; i < 3 || now() < end; ++i) {
    const double start = now();
    f();
    best = std::min(best, now() - start);
  }
  return best;
}

}  // namespace supersonic
