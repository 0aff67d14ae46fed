// supersonic COMMAND ...: finds the command, runs it, and turns what it throws into a message and
// an exit code.
#include <signal.h>

#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/help.h"
#include "core/error.h"

namespace supersonic::cli {
namespace {

[[noreturn]] void unknown_command(std::string_view name) {
  std::vector<std::string> names;
  for (const Command* c : all_commands()) {
    names.emplace_back(c->name);
    if (!c->about.alias.empty()) names.emplace_back(c->about.alias);
  }
  const std::string meant = nearest(name, names);
  fail(ErrorKind::usage, "unknown command '{}'{}\n'supersonic --help' lists the commands", name,
       meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant));
}

int dispatch(std::span<const char* const> arguments) {
  if (arguments.empty()) {
    log_text(Level::error, "a command is missing");
    const std::string text = overview();
    std::fwrite(text.data(), 1, text.size(), stderr);
    return static_cast<int>(ErrorKind::usage);
  }
  std::string_view name = arguments[0];
  if (name == "--version" || name == "-V") name = "version";
  if (name == "--help" || name == "-h") name = "help";
  const Command* command = find_command(name);
  if (!command) unknown_command(name);
  return command->run(*command, arguments.subspan(1));
}

int guarded(std::span<const char* const> arguments) {
  try {
    const int code = dispatch(arguments);
    flush_output();
    return code;
  } catch (const Error& e) {
    flush_output();
    log_text(Level::error, e.what());
    return static_cast<int>(e.kind());
  } catch (const std::bad_alloc&) {
    log_text(Level::error, "out of memory");
    return static_cast<int>(ErrorKind::memory);
  }
}

}  // namespace
}  // namespace supersonic::cli

int main(int argc, char** argv) {
  using namespace supersonic;
  const std::vector<const char*> arguments(argv + std::min(argc, 1), argv + argc);
  // A write that fails is an error with a message, not the end of the process: a file over the
  // limit of 'ulimit -f', and a log whose reader went away (results are another matter: see print).
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  try {
    return cli::guarded(arguments);
  } catch (const std::exception& e) {
    cli::log_text(cli::Level::error, e.what());
    return static_cast<int>(ErrorKind::failure);
  }
}
