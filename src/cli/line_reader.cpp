#include "cli/line_reader.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#if SUPERSONIC_LIBEDIT
#include <editline/readline.h>
#endif

namespace supersonic::cli {
namespace {

std::optional<std::string> plain_line() {
  char* text = nullptr;
  std::size_t room = 0;
  const ssize_t n = getline(&text, &room, stdin);
  const std::unique_ptr<char, decltype(&std::free)> owner(text, &std::free);
  if (n < 0) return std::nullopt;
  std::string line(text, static_cast<std::size_t>(n));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return line;
}

}  // namespace

bool input_is_terminal() { return isatty(STDIN_FILENO) == 1; }

std::optional<std::string> read_line(const char* prompt) {
  if (!input_is_terminal()) return plain_line();
#if SUPERSONIC_LIBEDIT
  const std::unique_ptr<char, decltype(&std::free)> text(readline(prompt), &std::free);
  if (!text) return std::nullopt;
  if (*text) add_history(text.get());
  return std::string(text.get());
#else
  std::fputs(prompt, stderr);
  return plain_line();
#endif
}

}  // namespace supersonic::cli
