// supersonic cp MODEL DEST: a model out of the cache into a folder, or into the cache under a name.
#include <fmt/core.h>

#include <filesystem>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/hub_options.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "hub/local.h"
#include "io/staged_output.h"

namespace supersonic::cli {
namespace {

namespace fs = std::filesystem;
constexpr const char* kNotice =
    "\nstopping; nothing will be left (Ctrl-C again to leave at once)\n";

struct Cp {
  std::string model, destination;
  bool force = false, json = false;

  static constexpr About about{
      .summary = "Copy a model out of the cache, or into it under a name",
      .usage = "MODEL DEST | MODEL hf://OWNER/NAME",
      .details =
          "DEST is a folder, or a file for a GGUF model of one file; the copy holds files, no "
          "links. hf://OWNER/NAME puts the model into the "
          "cache of this machine under that name, without any network: every command, and "
          "huggingface_hub with local_files_only, then finds it "
          "there. A copy within the cache takes no room of its own.",
      .examples =
          "supersonic cp HuggingFaceTB/SmolLM2-135M-Instruct ./smollm2\nsupersonic cp "
          "bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M llama.gguf\n"
          "supersonic cp merged/ hf://me/my-model",
      .alias = "copy",
      .group = CommandGroup::models};

  void options(Options& o) {
    declare_model(o, model);
    o.positional("to", destination, "A folder or file, or hf://OWNER/NAME")
        .value("DEST")
        .required();
    o.add("force", force, "Replace what is there");
    declare_json(o, json);
  }

  int run(Context&) {
    const hub::LocalModel source = hub::local_model(model);
    const InterruptGuard guard(kNotice);
    std::optional<Progress> progress;
    const auto show = [&](std::uint64_t done, std::uint64_t total) {
      show_bytes(progress, "copying", done, total);
    };
    const std::string path =
        destination.starts_with("hf://") ? adopt(source, show) : copy(source, show);
    if (progress) progress->finish();
    report(source, path);
    flush_output();
    return guard.complete(0);
  }

  std::string adopt(const hub::LocalModel& source, const hub::CopyProgress& show) const {
    const hub::ModelName name = hub::require_name(destination);
    if (!name.choice.empty())
      fail(ErrorKind::usage, "cp: {}: a name to copy to has no ':' part", destination);
    const hub::Settings settings = hub::read_cache_settings();
    return hub::adopt(source, hub::Cache(settings), name, force, show);
  }

  // One file to a file, or into a folder that is there; all else to a folder of its own.
  std::string copy(const hub::LocalModel& source, const hub::CopyProgress& show) const {
    const auto& files = source.selection.files;
    const bool one = files.size() == 1 && !source.selection.main.empty();
    if (!one) {
      io::StagedOutput out(destination, io::StagedOutput::Kind::folder, force, std::vector{model});
      hub::copy_files(source, out.staged(), show);
      out.commit();
      return out.path();
    }
    const fs::path name = fs::path(files[0].path).filename();
    std::error_code error;
    const bool into = destination.ends_with('/') || fs::is_directory(destination, error);
    io::StagedOutput out(into ? (fs::path(destination) / name).string() : destination,
                         io::StagedOutput::Kind::file, force, std::vector{model});
    const fs::path staged = out.staged();
    hub::LocalModel flat = source;
    flat.folder = (fs::path(source.folder) / files[0].path).parent_path().string();
    flat.selection.files[0].path = name.string();
    hub::copy_files(flat, staged.parent_path().string(), show);
    if (staged.filename() != name) fs::rename(staged.parent_path() / name, staged);
    out.commit();
    return out.path();
  }

  void report(const hub::LocalModel& source, const std::string& path) const {
    if (!json) return print(path + "\n");
    JsonWriter w;
    w.begin_object()
        .key("path")
        .value(path)
        .key("bytes")
        .value(source.selection.bytes())
        .key("files")
        .begin_array();
    for (const hub::RepoFile& f : source.selection.files) w.value(f.path);
    print(w.end_array().end_object().text() + "\n");
  }
};

}  // namespace

COMMAND(cp, Cp)

}  // namespace supersonic::cli
