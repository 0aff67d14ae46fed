// The one place that writes to the terminal. A line goes out in one call, so that lines of threads
// do not mix.
#include "cli/console.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace supersonic::cli {
namespace {

Level threshold = Level::info;

bool colours() {
  const char* no_color = std::getenv("NO_COLOR");
  return !(no_color && *no_color) && error_is_terminal();
}

// Whoever read the results has seen enough ("| head"): the process ends as programs do then.
void leave_without_reader() {
  if (errno != EPIPE) return;
  signal(SIGPIPE, SIG_DFL);
  raise(SIGPIPE);
}

}  // namespace

void set_verbosity(int verbose, bool quiet) {
  threshold = quiet ? Level::error : verbose > 0 ? Level::detail : Level::info;
}
bool shows(Level level) { return level <= threshold; }

void log_text(Level level, std::string_view text) {
  if (!shows(level)) return;
  constexpr std::string_view labels[] = {"error: ", "warning: ", "", ""};
  constexpr std::string_view colour[] = {"\033[1;31m", "\033[1;33m", "", ""};
  const int i = static_cast<int>(level);
  const bool coloured = i < 2 && colours();
  std::string line;
  if (coloured) line += colour[i];
  line += labels[i];
  if (coloured) line += "\033[0m";
  line += text, line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) leave_without_reader();
}

void flush_output() {
  const bool flushed = std::fflush(stdout) == 0;
  if (!flushed) leave_without_reader();
  CHECK(flushed && !std::ferror(stdout), "cannot write the output: {}", std::strerror(errno));
}

bool error_is_terminal() { return isatty(STDERR_FILENO) == 1; }
bool output_is_terminal() { return isatty(STDOUT_FILENO) == 1; }

std::size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

std::string read_input(const std::string& path, std::size_t limit) {
  std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  CHECK_FILE(file, "{}: cannot open: {}", path, std::strerror(errno));
  std::string text;
  char buffer[1 << 16];
  std::size_t got = 0;
  while (text.size() <= limit && (got = std::fread(buffer, 1, sizeof buffer, file)) > 0)
    text.append(buffer, got);
  const int error = std::ferror(file) ? errno : 0;
  if (file != stdin) std::fclose(file);
  CHECK_FILE(!error, "{}: cannot read: {}", path, std::strerror(error));
  CHECK_FILE(text.size() <= limit, "{}: larger than {} bytes", path, limit);
  return text;
}

}  // namespace supersonic::cli
