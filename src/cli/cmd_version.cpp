// supersonic version: what this build is.
#include <fmt/core.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"

namespace supersonic::cli {
namespace {

struct Version {
  bool json = false;
  static constexpr About about{.summary = "Show the version of this program",
                               .usage = "[--json]",
                               .group = CommandGroup::system};
  void options(Options& o) { declare_json(o, json); }
  int run(Context&) {
    if (!json) return print("supersonic " SUPERSONIC_VERSION "\n"), 0;
    JsonWriter w;
    w.begin_object()
        .key("version")
        .value(SUPERSONIC_VERSION)
        .key("compiler")
        .value("g++ " __VERSION__);
    w.key("architecture")
        .value(
#if defined(__x86_64__)
            "x86_64"
#elif defined(__aarch64__)
            "aarch64"
#else
            "unknown"
#endif
        );
    w.end_object();
    return print(w.text() + "\n"), 0;
  }
};

}  // namespace

COMMAND(version, Version)

}  // namespace supersonic::cli
