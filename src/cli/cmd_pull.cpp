// supersonic pull OWNER/NAME[:FILE|:QUANT][@REVISION]: a model from the hub into the cache.
#include <fmt/core.h>

#include <chrono>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/hub_options.h"
#include "cli/json_writer.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "hub/card.h"
#include "hub/pull.h"

namespace supersonic::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr const char* kNotice =
    "\nstopping; what has come is kept, the same command goes on (Ctrl-C again to leave at once)\n";

struct Pull {
  std::string name;
  HubOptions network;
  bool dry_run = false, json = false;

  static constexpr About about{
      .summary = "Download a model from the Hugging Face hub",
      .usage = "OWNER/NAME[:FILE|:TYPE][@REVISION]",
      .details =
          "Downloads what makes up the model: configuration, tokenizer and safetensors, or of a "
          "repository of GGUF files the one that is asked "
          "for (:Q4_K_M, or a file's name), else one of about 4 bits. The files go to the cache "
          "that huggingface_hub has, too (HF_HOME, "
          "HF_HUB_CACHE), and every command then takes OWNER/NAME[:TYPE] for a MODEL. Each file's "
          "hash is checked. A download that was "
          "interrupted goes on where it stopped. For private and gated models set HF_TOKEN. Prints "
          "the path.",
      .examples =
          "supersonic pull HuggingFaceTB/SmolLM2-135M-Instruct\nsupersonic pull "
          "bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M\n"
          "supersonic pull Qwen/Qwen2.5-0.5B@main --dry-run",
      .group = CommandGroup::models};

  void options(Options& o) {
    o.positional("name", name, "The model on the hub").value("NAME").required();
    o.add("dry-run", dry_run, "Say what would be downloaded, and stop").flag_only();
    network.options(o, true);
    declare_json(o, json);
  }

  int run(Context&) {
    const hub::ModelName wanted = hub::require_name(name);
    const hub::Settings settings = network.settings();
    const InterruptGuard guard(kNotice);
    std::optional<Progress> progress;
    const hub::Watch watch = watch_transfers(progress);
    hub::Pull pull(settings, wanted, watch);
    const std::uint64_t missing = pull.missing();
    announce(wanted, pull, missing);
    if (dry_run) return list(wanted, pull, missing), 0;
    const auto begin = Clock::now();
    const std::uint64_t received =
        pull.download(network.connections, [&](const hub::Pull::Progress& p) {
          if (missing)
            show_bytes(progress, "pulling", p.arrived, p.total,
                       p.all_files > 1 ? fmt::format("{} of {} files", p.files, p.all_files) : "");
        });
    if (progress) progress->finish();
    if (pull.selection().kind == hub::Selection::Kind::adapter) name_base(wanted, pull.path());
    report(wanted, pull, received, std::chrono::duration<double>(Clock::now() - begin).count());
    flush_output();
    return guard.complete(0);
  }

  static void announce(const hub::ModelName& wanted, const hub::Pull& pull, std::uint64_t missing) {
    const hub::Selection& s = pull.selection();
    log_info("{}: {}, {} in {} file{}{}", wanted.text(), s.what, size_text(s.bytes()),
             s.files.size(), s.files.size() == 1 ? "" : "s",
             missing == 0          ? ", all of it here"
             : missing < s.bytes() ? fmt::format(", {} to come", size_text(missing))
                                   : "");
    if (s.others.empty()) return;
    std::string others;
    for (const std::string& other : s.others) others += (others.empty() ? "" : ", ") + other;
    log_info("also there: {} ('supersonic pull {}:{}')", others, wanted.repo(), s.others[0]);
  }

  // An adapter is of use beside its base model alone.
  static void name_base(const hub::ModelName& wanted, const std::string& folder) {
    const std::string base = hub::base_model_of({.folder = folder,
                                                 .file = "",
                                                 .repo = wanted.repo(),
                                                 .base_model = "",
                                                 .license = "",
                                                 .cache = ""});
    if (!base.empty())
      log_info("an adapter of {0}: 'supersonic pull {0}', then --adapter {1}", base, wanted.text());
  }

  static void write_files(JsonWriter& w, const hub::Selection& s) {
    w.key("files").begin_array();
    for (const hub::RepoFile& f : s.files)
      w.begin_object()
          .key("path")
          .value(f.path)
          .key("bytes")
          .value(f.size)
          .key("hash")
          .value(f.etag)
          .end_object();
    w.end_array().key("others").begin_array();
    for (const std::string& other : s.others) w.value(other);
    w.end_array();
  }

  static void write_head(JsonWriter& w, const hub::ModelName& wanted, const hub::Pull& pull) {
    w.begin_object()
        .key("name")
        .value(wanted.repo())
        .key("revision")
        .value(wanted.revision)
        .key("commit")
        .value(pull.commit());
    w.key("what").value(pull.selection().what).key("bytes").value(pull.selection().bytes());
  }

  void list(const hub::ModelName& wanted, const hub::Pull& pull, std::uint64_t missing) const {
    if (json) {
      JsonWriter w;
      write_head(w, wanted, pull);
      w.key("missing_bytes").value(missing);
      write_files(w, pull.selection());
      return print(w.end_object().text() + "\n");
    }
    for (const hub::RepoFile& f : pull.selection().files)
      print(fmt::format("{:>12}  {}\n", size_text(f.size), f.path));
  }

  void report(const hub::ModelName& wanted, const hub::Pull& pull, std::uint64_t received,
              double seconds) const {
    if (!json) return print(pull.path() + "\n");
    JsonWriter w;
    write_head(w, wanted, pull);
    w.key("path")
        .value(pull.path())
        .key("downloaded_bytes")
        .value(received)
        .key("seconds")
        .value(seconds);
    write_files(w, pull.selection());
    print(w.end_object().text() + "\n");
  }
};

}  // namespace

COMMAND(pull, Pull)

}  // namespace supersonic::cli
