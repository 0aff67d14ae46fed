// Errors: one exception type that carries what went wrong and how the program should exit.
// A message names the thing, the value and the remedy. CHECK is for what a caller or a file can get wrong.
#pragma once
#include <fmt/core.h>

#include <stdexcept>
#include <string>

namespace supersonic {

// The program's exit codes (docs/cli.md): the kind of an uncaught Error is the exit code.
enum class ErrorKind { failure = 1, usage = 2, memory = 3, network = 4, bad_file = 5, interrupted = 130 };

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ErrorKind kind = ErrorKind::failure)
      : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), kind);
}

}  // namespace supersonic

// Throws Error(failure) unless the condition holds.
#define CHECK(condition, ...)                                                                      \
  do {                                                                                             \
    if (!(condition)) [[unlikely]]                                                                 \
      ::supersonic::fail(::supersonic::ErrorKind::failure, __VA_ARGS__);                           \
  } while (0)

// The same for data that came from a file: exit code 5.
#define CHECK_FILE(condition, ...)                                                                 \
  do {                                                                                             \
    if (!(condition)) [[unlikely]]                                                                 \
      ::supersonic::fail(::supersonic::ErrorKind::bad_file, __VA_ARGS__);                          \
  } while (0)
