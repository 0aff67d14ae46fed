// supersonic help [COMMAND]: the overview, one command's page, or a page of the reference:
// docs/cli.md, docs/formats.md.
#include "cli/command.h"
#include "cli/console.h"
#include "cli/help.h"
#include "core/error.h"

namespace supersonic::cli {
namespace {

struct Help {
  std::string command;
  bool markdown = false, formats = false;
  static constexpr About about{.summary = "Show the commands, or one command's options",
                               .usage = "[COMMAND]",
                               .group = CommandGroup::system};
  void options(Options& o) {
    o.positional("command", command, "The command to explain").value("COMMAND");
    o.add("markdown", markdown, "Print the reference of all commands in Markdown");
    o.add("formats", formats, "Print the table of weight formats in Markdown");
  }
  int run(Context&) {
    if (markdown) return print(markdown_reference()), 0;
    if (formats) return print(formats_reference()), 0;
    if (command.empty()) return print(overview()), 0;
    const Command* c = find_command(command);
    if (!c)
      fail(ErrorKind::usage, "help: unknown command '{}'\n'supersonic help' lists the commands",
           command);
    const char* const arguments[] = {"--help"};
    return c->run(*c, {arguments, 1});
  }
};

}  // namespace

COMMAND(help, Help)

}  // namespace supersonic::cli
