// Ctrl-C: the first SIGINT, SIGTERM or SIGHUP (a terminal that was closed; not under nohup) sets a
// flag that long loops look at between steps, so that they can save and leave with
// Error(interrupted); the second exits at once with code 130. Without a guard a signal ends the
// program as usual.
#pragma once

namespace supersonic {

bool interrupted() noexcept;        // lock-free; may be called from any thread
void request_interrupt() noexcept;  // what the first signal does
void clear_interrupt() noexcept;
void check_interrupt();  // throws Error(interrupted) once interrupted

// While one exists, signals are caught as described. `notice` (static storage) is written to stderr
// at the first one; where it is not empty, the second one says that it stops.
class InterruptGuard {
 public:
  explicit InterruptGuard(const char* notice);
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;

  // The work is done and its results are written: until the process ends, also after the guard's
  // end, a signal ends it at once with `code`, so that a run which is complete never seems killed
  // because memory was still being given back. Returns `code`.
  int complete(int code) const noexcept;
};

}  // namespace supersonic
