// What the program writes: results on stdout, everything else on stderr. -q leaves errors only, -v
// adds detail. Colour is used on a terminal unless NO_COLOR is set.
#pragma once
#include <fmt/core.h>

#include <string_view>

namespace supersonic::cli {

enum class Level { error, warning, info, detail };

void set_verbosity(int verbose, bool quiet);
bool shows(Level level);
void log_text(
    Level level,
    std::string_view text);  // one line on stderr, with "error: " or "warning: " before it

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (shows(Level::info)) log_text(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (shows(Level::warning))
    log_text(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_detail(fmt::format_string<Args...> format, Args&&... args) {
  if (shows(Level::detail))
    log_text(Level::detail, fmt::format(format, std::forward<Args>(args)...));
}

void print(std::string_view text);  // to stdout, buffered
void flush_output();  // throws Error(failure) when stdout cannot be written (a full disk)

bool error_is_terminal();
bool output_is_terminal();
std::size_t terminal_width();  // of stderr; 80 when it is no terminal

// Reads a whole file, or stdin for "-". Throws Error(bad_file) when it is missing, a folder or over
// `limit` bytes.
std::string read_input(const std::string& path, std::size_t limit);

}  // namespace supersonic::cli
