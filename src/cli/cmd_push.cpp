// supersonic push FOLDER_OR_FILE OWNER/NAME: a model or an adapter to the hub.
#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/hub_options.h"
#include "cli/json_writer.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "hub/card.h"
#include "hub/local.h"
#include "hub/push.h"

namespace supersonic::cli {
namespace {

namespace fs = std::filesystem;
constexpr const char* kNotice =
    "\nstopping; nothing will be visible on the hub (Ctrl-C again to leave at once)\n";
constexpr const char* kCard = "README.md";

// Beside the model's own files: what people put there for readers.
bool for_readers(const std::string& path) {
  for (const char* end : {".md", ".png", ".svg", ".jpg", ".jinja"})
    if (path.ends_with(end)) return true;
  return path == "train_log.jsonl";
}

struct Push {
  std::string source, name, message, base_model, license;
  bool is_private = false, create_pr = false, all = false, card = true, dry_run = false,
       json = false;
  HubOptions network;

  static constexpr About about{
      .summary = "Upload a model or an adapter to the Hugging Face hub",
      .usage = "FOLDER_OR_FILE OWNER/NAME[@BRANCH] [--private]",
      .details =
          "Makes the repository where there is none, sends what the hub does not have yet, and "
          "makes one commit. Of a folder the model's or "
          "adapter's own files go, with README.md, pictures and the training log; the others are "
          "named and stay here (--all sends them, too). Where "
          "neither the folder nor the repository has a model card, one is written from what the "
          "files say. Needs HF_TOKEN with the right to write.",
      .examples =
          "supersonic push out/ me/my-adapter --private\nsupersonic push merged.gguf "
          "me/my-model-GGUF --base-model HuggingFaceTB/SmolLM2-135M-Instruct\n"
          "supersonic push merged/ me/my-model --dry-run",
      .group = CommandGroup::models};

  void options(Options& o) {
    o.positional("source", source, "Folder of a model or adapter, or a GGUF file")
        .value("FOLDER_OR_FILE")
        .required();
    o.positional("name", name, "The repository on the hub").value("OWNER/NAME").required();
    o.add("private", is_private, "Make a new repository private");
    o.add("message", message, "The commit's message").shown("Upload FILE with Supersonic");
    o.add("create-pr", create_pr, "Propose the commit as a pull request");
    o.add("all", all, "Send every file of the folder but hidden ones");
    o.group("Model card");
    o.add("card", card, "Write one where there is none");
    o.add("base-model", base_model, "What the model was made from; else what its files say")
        .value("OWNER/NAME");
    o.add("license", license, "Its licence; else that of the base model's card in the cache")
        .value("ID");
    o.add("dry-run", dry_run, "Say what would be sent, and stop").flag_only();
    network.options(o, false);
    declare_json(o, json);
  }

  int run(Context&) {
    const hub::ModelName target = hub::require_name(name);
    if (!target.choice.empty())
      fail(ErrorKind::usage, "push: {}: a name to push to has no ':' part", name);
    const hub::Settings settings = network.settings();
    if (settings.offline) fail(ErrorKind::network, "push: HF_HUB_OFFLINE is set");
    std::vector<hub::PushFile> files = collect();
    const bool brings_card =
        std::any_of(files.begin(), files.end(), [](const auto& f) { return f.path == kCard; });
    if (!brings_card && card) add_card(files, target, settings);
    announce(files, target, brings_card);
    if (dry_run) return list(files), 0;
    const InterruptGuard guard(kNotice);
    std::optional<Progress> progress;
    const hub::Watch watch = watch_transfers(progress);
    hub::Push push(settings,
                   {.repo = target.repo(),
                    .revision = target.revision,
                    .message = summary(),
                    .is_private = is_private,
                    .create_pr = create_pr,
                    .jobs = network.connections},
                   watch);
    push.hash(files, [&](std::uint64_t done, std::uint64_t total) {
      show_bytes(progress, "hashing", done, total);
    });
    if (progress) progress->finish();
    progress.reset();
    push.open_repository();
    if (!brings_card && push.has_file(kCard))
      std::erase_if(files, [](const auto& f) { return f.path == kCard; });
    const hub::PushResult result = push.send(files, [&](std::uint64_t done, std::uint64_t total) {
      show_bytes(progress, "pushing", done, total);
    });
    if (progress) progress->finish();
    report(result);
    flush_output();
    return guard.complete(0);
  }

  std::string summary() const {
    return message.empty()
               ? fmt::format("Upload {} with Supersonic",
                             fs::absolute(fs::path(source) / "").parent_path().filename().string())
               : message;
  }

  bool is_file() const {
    std::error_code error;
    return fs::is_regular_file(source, error);
  }

  // What is sent, with its place in the repository; says what of a folder is not.
  std::vector<hub::PushFile> collect() const {
    const hub::LocalModel local = hub::local_model(source);
    std::vector<hub::RepoFile> chosen = local.selection.files;
    std::string left;
    if (!is_file())
      for (const hub::RepoFile& f : hub::list_folder(source)) {
        if (std::any_of(chosen.begin(), chosen.end(),
                        [&](const auto& c) { return c.path == f.path; }))
          continue;
        if (all || (for_readers(f.path) && f.path.find('/') == f.path.npos))
          chosen.push_back(f);
        else
          left += (left.empty() ? "" : ", ") + f.path;
      }
    if (!left.empty())
      log_info("not sent: {} (--all sends them, too)",
               left.size() > 300 ? left.substr(0, 300) + "…" : left);
    std::vector<hub::PushFile> out;
    for (const hub::RepoFile& f : chosen) {
      hub::PushFile p;
      p.path = f.path, p.source = (fs::path(local.folder) / f.path).string(), p.size = f.size;
      out.push_back(std::move(p));
    }
    return out;
  }

  void add_card(std::vector<hub::PushFile>& files, const hub::ModelName& target,
                const hub::Settings& settings) const {
    const hub::CardRequest request{.folder = source,
                                   .file = is_file() ? source : "",
                                   .repo = target.repo(),
                                   .base_model = base_model,
                                   .license = license,
                                   .cache = settings.cache};
    if (hub::base_model_of(request).empty())
      log_warning(
          "the files do not say what model of the hub this was made from: name it with "
          "--base-model OWNER/NAME, so that others find it");
    hub::PushFile f;
    f.path = kCard, f.content = hub::make_card(request), f.size = f.content.size();
    files.push_back(std::move(f));
  }

  static void announce(const std::vector<hub::PushFile>& files, const hub::ModelName& target,
                       bool brings_card) {
    std::uint64_t bytes = 0;
    for (const hub::PushFile& f : files) bytes += f.size;
    log_info("{}: {} in {} files{}", target.text(), size_text(bytes), files.size(),
             brings_card ? "" : ", with a new model card where there is none");
  }

  void list(const std::vector<hub::PushFile>& files) const {
    if (!json) {
      for (const hub::PushFile& f : files)
        print(fmt::format("{:>12}  {}\n", size_text(f.size), f.path));
      return;
    }
    JsonWriter w;
    w.begin_object().key("files").begin_array();
    for (const hub::PushFile& f : files) {
      w.begin_object().key("path").value(f.path).key("bytes").value(f.size);
      if (f.source.empty()) w.key("content").value(f.content);
      w.end_object();
    }
    print(w.end_array().end_object().text() + "\n");
  }

  void report(const hub::PushResult& r) const {
    if (json) {
      JsonWriter w;
      w.begin_object()
          .key("url")
          .value(r.url)
          .key("commit")
          .value(r.commit)
          .key("pull_request")
          .value(r.pull_request);
      w.key("files")
          .value(r.files)
          .key("bytes_sent")
          .value(r.bytes_sent)
          .key("nothing_new")
          .value(r.nothing_new)
          .end_object();
      return print(w.text() + "\n");
    }
    if (r.nothing_new) log_info("the hub has all of it already");
    print((r.pull_request.empty() ? r.url : r.pull_request) + "\n");
  }
};

}  // namespace

COMMAND(push, Push)

}  // namespace supersonic::cli
