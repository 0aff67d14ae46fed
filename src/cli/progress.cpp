// A line is built in a fixed buffer and written by one write(2); the rate is an average over about
// ten seconds.
#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "cli/console.h"
#include "core/format_into.h"

namespace supersonic::cli {
namespace {

constexpr std::size_t kBuffer = 512;

// A line under construction in a fixed buffer; what does not fit is dropped.
struct Line {
  char data[kBuffer];
  std::size_t size = 0;
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    const std::size_t added =
        format_into(data + size, kBuffer - size, format, std::forward<Args>(args)...);
    size = std::min(kBuffer, size + added);
  }
};

void add_scaled(Line& line, double value) {
  if (value >= 1e10) {
    line.add("{:.1f}G", value / 1e9);
  } else if (value >= 1e7) {
    line.add("{:.1f}M", value / 1e6);
  } else if (value >= 1e4) {
    line.add("{:.1f}k", value / 1e3);
  } else {
    line.add("{:.{}f}", value, value < 10 && value != std::floor(value) ? 2 : 0);
  }
}

}  // namespace

std::size_t format_duration(double seconds, char* out) {
  const long s = std::lround(std::clamp(seconds, 0.0, 359999.0));
  if (s >= 3600) return format_into(out, 16, "{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return format_into(out, 16, "{}:{:02}", s / 60, s % 60);
}

Progress::Progress(std::string_view label, std::string_view unit, std::uint64_t total,
                   std::uint64_t start)
    : Progress(label, unit, total, start,
               {.file = STDERR_FILENO,
                .terminal = error_is_terminal(),
                .silent = !shows(Level::info),
                .width = terminal_width()}) {}

Progress::Progress(std::string_view label, std::string_view unit, std::uint64_t total,
                   std::uint64_t start, Settings settings)
    : label_(label),
      unit_(unit),
      total_(total),
      start_(start),
      done_(start),
      settings_(settings),
      begin_(Clock::now()),
      shown_(begin_),
      measured_(begin_),
      measured_done_(start) {}

Progress::~Progress() { clear(); }

void Progress::update_at(Clock::time_point now, std::uint64_t done, std::string_view note) {
  done_ = done;
  const double elapsed = std::chrono::duration<double>(now - measured_).count();
  if (elapsed >= 0.5 && done >= measured_done_) {
    const double rate = static_cast<double>(done - measured_done_) / elapsed;
    const double weight = rate_ == 0 ? 1 : 1 - std::exp(-elapsed / 10);
    rate_ += weight * (rate - rate_);
    measured_ = now, measured_done_ = done;
  }
  const double since = std::chrono::duration<double>(now - shown_).count();
  if (settings_.silent || since < (settings_.terminal ? 0.1 : 10.0)) return;
  shown_ = now;
  show(done, note, false);
}

double Progress::seconds_left(std::uint64_t done) const {
  return rate_ > 0 && total_ > done ? static_cast<double>(total_ - done) / rate_ : -1;
}

void Progress::show(std::uint64_t done, std::string_view note, bool last) {
  Line line;
  if (settings_.terminal) line.add("\r\033[K");
  const std::size_t prefix = line.size;
  line.add("{} ", label_);
  if (total_) {
    const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
    if (settings_.terminal && settings_.width >= 70) {
      const int cells = static_cast<int>(part * 20);
      line.add("[{:=<{}}{: <{}}] ", "", cells, "", 20 - cells);
    }
    line.add("{:3.0f}% ", part * 100);
    add_scaled(line, static_cast<double>(done));
    line.add("/");
    add_scaled(line, static_cast<double>(total_));
  } else {
    add_scaled(line, static_cast<double>(done));
  }
  line.add(" {}", unit_);
  const double elapsed = std::chrono::duration<double>(Clock::now() - begin_).count();
  const double rate =
      last && elapsed > 0 ? static_cast<double>(done - std::min(done, start_)) / elapsed : rate_;
  if (rate > 0) line.add(", "), add_scaled(line, rate), line.add(" {}/s", unit_);
  char time[16];
  const double left = seconds_left(done);
  if (last) {
    line.add(", {} in all", std::string_view(time, format_duration(elapsed, time)));
  } else if (left >= 0) {
    line.add(", {} left", std::string_view(time, format_duration(left, time)));
  }
  if (!note.empty()) line.add(", {}", note);
  if (settings_.terminal) line.size = std::min(line.size, prefix + settings_.width - 1);
  line.size = std::min(line.size, kBuffer - 1);
  if (!settings_.terminal || last) line.data[line.size++] = '\n';
  visible_ = settings_.terminal && !last;
  [[maybe_unused]] const auto n = write(settings_.file, line.data, line.size);
}

void Progress::clear() {
  if (!visible_) return;
  visible_ = false;
  [[maybe_unused]] const auto n = write(settings_.file, "\r\033[K", 4);
}

void Progress::finish(std::string_view note) {
  if (!finished_ && !settings_.silent) show(done_, note, true);
  finished_ = true;
}

}  // namespace supersonic::cli
