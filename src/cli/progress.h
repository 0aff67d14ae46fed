// Progress of a long loop on stderr: on a terminal one line that is rewritten up to ten times a
// second, otherwise a line every ten seconds. Shows how far, the rate, the remaining time and a
// note of the caller's. update() allocates nothing, so it may be called in a training step.
#pragma once
#include <chrono>
#include <cstdint>
#include <string_view>

namespace supersonic::cli {

class Progress {
 public:
  using Clock = std::chrono::steady_clock;
  struct Settings {
    int file = 2;           // descriptor that is written to
    bool terminal = false;  // rewrite one line
    bool silent = false;    // --quiet
    std::size_t width = 80;
  };

  // `label` and `unit` ("tok", "step") must outlive the object. total 0: unknown. `start`: work
  // done before (resume).
  Progress(std::string_view label, std::string_view unit, std::uint64_t total,
           std::uint64_t start = 0);
  Progress(std::string_view label, std::string_view unit, std::uint64_t total, std::uint64_t start,
           Settings settings);
  ~Progress();
  Progress(const Progress&) = delete;

  void update(std::uint64_t done, std::string_view note = {}) {
    update_at(Clock::now(), done, note);
  }
  void update_at(Clock::time_point now, std::uint64_t done, std::string_view note);
  // Before other output on stderr: removes the line. It comes back with the next update.
  void clear();
  void finish(std::string_view note = {});  // the last state, and a line end

 private:
  void show(std::uint64_t done, std::string_view note, bool last);
  double seconds_left(std::uint64_t done) const;

  std::string_view label_, unit_;
  std::uint64_t total_, start_, done_;
  Settings settings_;
  Clock::time_point begin_, shown_, measured_;
  std::uint64_t measured_done_;
  double rate_ = 0;  // units a second, averaged over about ten seconds
  bool visible_ = false, finished_ = false;
};

// "1:02:03", "4:05", "0:07"; into a buffer of at least 16 bytes. Returns the text's length.
std::size_t format_duration(double seconds, char* out);

}  // namespace supersonic::cli
