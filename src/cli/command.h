// A command is one file, src/cli/cmd_<name>.cpp, that holds a struct of its options with their
// defaults:
//
//   struct Tokenize {
//     std::string model, text;
//     static constexpr About about{.summary = "Show how text becomes token ids", .usage = "MODEL
//     --text TEXT"}; void options(Options& o);          // declares each member once int
//     run(Context& context);         // returns the exit code; throws Error
//   };
//   COMMAND(tokenize, Tokenize)          // the build collects these lines into all_commands()
//
// Nothing runs before main and only the chosen command declares its options, so the program starts
// in milliseconds.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "cli/options.h"

namespace supersonic::cli {

enum class CommandGroup { work, measure, tools, models, system };

struct About {
  std::string_view summary;        // one line, no full stop
  std::string_view usage;          // what follows the command's name: "MODEL [PROMPT]"
  std::string_view details = {};   // a paragraph or two
  std::string_view examples = {};  // one command per line
  std::string_view alias = {};     // a second name
  CommandGroup group = CommandGroup::tools;
};

struct Context {
  Options& options;
  bool json = false;  // results as JSON on stdout (commands that declare --json)
};

// Options that every command has; declared after the command's own.
struct CommonOptions {
  std::string config;
  int verbose = 0;
  bool quiet = false, help = false, print_config = false;
  void options(Options& o);
};

struct Command {
  std::string_view name;
  About about;
  void (*describe)(void (*visit)(const Options&, void*),
                   void*);  // declares the options of a fresh instance
  int (*run)(const Command& self, std::span<const char* const> arguments);
};

std::span<const Command* const> all_commands();      // generated: sorted by name
const Command* find_command(std::string_view name);  // by name or alias; null when unknown

// Parses, and handles --help, --print-config, -v and -q. Returns true when the command should run.
bool prepare(const Command& command, Options& options, CommonOptions& common,
             std::span<const char* const> arguments);
void declare_json(Options& o, bool& json);

template <class T>
Command make_command(std::string_view name) {
  Command c{.name = name, .about = T::about, .describe = nullptr, .run = nullptr};
  c.describe = [](void (*visit)(const Options&, void*), void* data) {
    T instance;
    CommonOptions common;
    Options options("");
    instance.options(options);
    common.options(options);
    visit(options, data);
  };
  c.run = [](const Command& self, std::span<const char* const> arguments) {
    T instance;
    CommonOptions common;
    Options options(self.name);
    instance.options(options);
    common.options(options);
    if (!prepare(self, options, common, arguments)) return 0;
    Context context{options};
    if constexpr (requires { instance.json; }) context.json = instance.json;
    return instance.run(context);
  };
  return c;
}

}  // namespace supersonic::cli

#define COMMAND(name, Type)                                             \
  const ::supersonic::cli::Command& name##_command() {                  \
    static const auto c = ::supersonic::cli::make_command<Type>(#name); \
    return c;                                                           \
  }
