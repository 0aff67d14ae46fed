// What every command shares: its common options, --help and --print-config.
#include "cli/command.h"

#include <algorithm>
#include <cstdlib>

#include "cli/console.h"
#include "cli/help.h"
#include "cli/model_reference.h"

namespace supersonic::cli {

void CommonOptions::options(Options& o) {
  o.group("Common");
  o.add("config", config, "YAML file with options as keys").letter('c').value("FILE");
  o.count("verbose", verbose, "Log more; -vv more still").letter('v');
  o.add("quiet", quiet, "Log errors only").letter('q');
  o.add("print-config", print_config,
        "Print every option with its value and origin as YAML, and stop")
      .flag_only();
  o.add("help", help, "Show this page").letter('h').flag_only();
}

void declare_json(Options& o, bool& json) { o.add("json", json, "Print the result as JSON"); }

const Command* find_command(std::string_view name) {
  for (const Command* c : all_commands())
    if (c->name == name || (!c->about.alias.empty() && c->about.alias == name)) return c;
  return nullptr;
}

bool prepare(const Command& command, Options& options, CommonOptions& common,
             std::span<const char* const> arguments) {
  for (std::string_view argument : arguments) {  // help is shown even where something else is wrong
    if (argument == "--") break;
    if (argument != "--help" && argument != "-h") continue;
    print(help_page(command, options, std::min<std::size_t>(terminal_width(), 110)));
    return false;
  }
  options.parse(arguments, [](const char* name) { return std::getenv(name); });
  set_verbosity(common.verbose, common.quiet);
  if (common.print_config) {
    print(options.resolved_yaml());
    return false;
  }
  options.check_required();
  options.resolve_models(resolve_model);
  return true;
}

}  // namespace supersonic::cli
