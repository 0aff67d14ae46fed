// supersonic rm NAME…: models out of the cache.
#include <fmt/core.h>
#include <unistd.h>

#include <iostream>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/hub_options.h"
#include "cli/json_writer.h"
#include "core/error.h"
#include "hub/remove.h"

namespace supersonic::cli {
namespace {

struct Rm {
  std::vector<std::string> names;
  bool yes = false, dry_run = false, json = false;

  static constexpr About about{
      .summary = "Remove models from the cache",
      .usage = "OWNER/NAME[:FILE|:TYPE][@REVISION]… [--yes]",
      .details =
          "Without :TYPE and @REVISION all of the model goes. Content that another revision needs "
          "stays. Asks first, unless --yes is given.",
      .examples =
          "supersonic rm bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0\nsupersonic rm "
          "Qwen/Qwen2.5-0.5B --yes",
      .alias = "remove",
      .group = CommandGroup::models};

  void options(Options& o) {
    o.positional("names", names, "Models in the cache").value("NAME").required();
    o.add("yes", yes, "Do not ask").letter('y');
    o.add("dry-run", dry_run, "Say what would go, and stop").flag_only();
    declare_json(o, json);
  }

  int run(Context&) {
    const hub::Settings settings = hub::read_cache_settings();
    const hub::Cache cache(settings);
    std::vector<hub::Removal> plans;
    for (const std::string& name : names)
      plans.push_back(hub::plan_removal(cache, hub::require_name(name)));
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < plans.size(); ++i) {
      bytes += plans[i].bytes;
      log_info("{}: {}, {}", names[i], what_goes(plans[i]), size_text(plans[i].bytes));
    }
    if (!dry_run && !yes && !confirmed(bytes)) fail(ErrorKind::failure, "nothing was removed");
    if (!dry_run)
      for (const hub::Removal& plan : plans) hub::remove(cache, plan);
    report(plans, bytes);
    return 0;
  }

  static std::string what_goes(const hub::Removal& plan) {
    if (plan.whole) return "all of it";
    if (!plan.commits.empty()) return "this revision";
    return fmt::format("{} file{}", plan.files.size(), plan.files.size() == 1 ? "" : "s");
  }

  static bool confirmed(std::uint64_t bytes) {
    if (isatty(STDIN_FILENO) != 1)
      fail(ErrorKind::usage,
           "rm: there is nobody to ask; give --yes to remove without being asked");
    std::fprintf(stderr, "Remove %s from the disk? [y/N] ", size_text(bytes).c_str());
    std::string answer;
    std::getline(std::cin, answer);
    return answer == "y" || answer == "Y" || answer == "yes";
  }

  void report(const std::vector<hub::Removal>& plans, std::uint64_t bytes) const {
    if (!json) return log_info("{} {}", size_text(bytes), dry_run ? "would be free" : "are free");
    JsonWriter w;
    w.begin_object()
        .key("removed")
        .value(!dry_run)
        .key("bytes")
        .value(bytes)
        .key("models")
        .begin_array();
    for (const hub::Removal& p : plans) {
      w.begin_object()
          .key("name")
          .value(p.repo)
          .key("whole")
          .value(p.whole)
          .key("bytes")
          .value(p.bytes)
          .key("blobs")
          .begin_array();
      for (const std::string& blob : p.blobs) w.value(blob);
      w.end_array().end_object();
    }
    print(w.end_array().end_object().text() + "\n");
  }
};

}  // namespace

COMMAND(rm, Rm)

}  // namespace supersonic::cli
