// supersonic ls: the models in the cache.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/hub_options.h"
#include "cli/json_writer.h"
#include "core/error.h"
#include "hub/cache.h"
#include "hub/pull.h"

namespace supersonic::cli {
namespace {

// What of a snapshot can be named on the command line: OWNER/NAME, OWNER/NAME:Q4_K_M.
struct Usable {
  std::string name, kind;
  std::uint64_t bytes = 0;
  bool complete = true;
};

std::vector<Usable> usable_in(const hub::CachedRepo& repo, const hub::CachedSnapshot& s) {
  std::vector<Usable> out;
  const auto gguf = hub::gguf_models(s.files);
  std::uint64_t in_gguf = 0;
  for (const hub::GgufModel& m : gguf) {
    const auto same =
        std::count_if(gguf.begin(), gguf.end(), [&](const auto& x) { return x.type == m.type; });
    out.push_back({repo.repo() + ":" + (m.type.empty() || same > 1 ? m.files[0].path : m.type),
                   "GGUF", m.bytes(), m.complete()});
    in_gguf += m.bytes();
  }
  try {
    const hub::Selection whole = hub::select_files(s.files, "", repo.repo());
    if (whole.kind != hub::Selection::Kind::gguf)
      out.insert(out.begin(), {repo.repo(), whole.what, s.bytes() - in_gguf, true});
  } catch (const Error&) {
    if (gguf.empty())
      out.push_back(
          {repo.repo(), fmt::format("{} files, no model", s.files.size()), s.bytes(), true});
  }
  return out;
}

std::string revision_text(const hub::CachedSnapshot& s) {
  return s.refs.empty() ? s.commit.substr(0, 12) : fmt::format("{}", fmt::join(s.refs, ", "));
}

struct Ls {
  std::string filter;
  bool json = false;

  static constexpr About about{
      .summary = "List the models in the cache",
      .usage = "[FILTER] [--json]",
      .details =
          "What pull has downloaded, and what huggingface_hub has: the cache is one. Sizes are "
          "those on the disk; --json also lists revisions, "
          "commits and files.",
      .examples = "supersonic ls\nsupersonic ls qwen --json",
      .alias = "list",
      .group = CommandGroup::models};

  void options(Options& o) {
    o.positional("filter", filter, "Only names with this text in them").value("FILTER");
    declare_json(o, json);
  }

  int run(Context&) {
    const hub::Settings settings = hub::read_cache_settings();
    auto repos = hub::Cache(settings).list();
    std::erase_if(repos, [&](const hub::CachedRepo& r) {
      return lower(r.repo()).find(lower(filter)) == std::string::npos;
    });
    json ? print_json(repos, settings.cache) : print_text(repos, settings.cache);
    return 0;
  }

  static std::string lower(std::string text) {
    for (char& c : text)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return text;
  }

  static void print_text(const std::vector<hub::CachedRepo>& repos, const std::string& root) {
    std::vector<std::array<std::string, 5>> rows = {
        {"MODEL", "REVISION", "SIZE", "LAST USED", "KIND"}};
    std::uint64_t total = 0, unfinished = 0;
    const std::int64_t now = std::time(nullptr);
    for (const hub::CachedRepo& r : repos) {
      total += r.bytes, unfinished += r.unfinished;
      for (const hub::CachedSnapshot& s : r.snapshots)
        for (const Usable& u : usable_in(r, s))
          rows.push_back({u.name, revision_text(s), size_text(u.bytes), age_text(s.last_used, now),
                          u.complete ? u.kind : u.kind + ", incomplete"});
    }
    std::array<std::size_t, 4> width{};
    for (const auto& row : rows)
      for (std::size_t i = 0; i < width.size(); ++i) width[i] = std::max(width[i], row[i].size());
    if (rows.size() > 1)
      for (const auto& row : rows)
        print(fmt::format("{:<{}}  {:<{}}  {:>{}}  {:<{}}  {}\n", row[0], width[0], row[1],
                          width[1], row[2], width[2], row[3], width[3], row[4]));
    log_info("{} in {} model{} in {}{}", size_text(total), repos.size(),
             repos.size() == 1 ? "" : "s", root,
             unfinished
                 ? fmt::format(", and {} of downloads that have not ended", size_text(unfinished))
                 : "");
  }

  static void write_snapshot(JsonWriter& w, const hub::CachedRepo& r,
                             const hub::CachedSnapshot& s) {
    w.begin_object().key("commit").value(s.commit).key("refs").begin_array();
    for (const std::string& ref : s.refs) w.value(ref);
    w.end_array()
        .key("path")
        .value(r.folder + "/snapshots/" + s.commit)
        .key("bytes")
        .value(s.bytes());
    w.key("last_used")
        .value(s.last_used)
        .key("last_changed")
        .value(s.last_changed)
        .key("models")
        .begin_array();
    for (const Usable& u : usable_in(r, s))
      w.begin_object()
          .key("name")
          .value(u.name)
          .key("kind")
          .value(u.kind)
          .key("bytes")
          .value(u.bytes)
          .key("complete")
          .value(u.complete)
          .end_object();
    w.end_array().key("files").begin_array();
    for (const hub::RepoFile& f : s.files)
      w.begin_object()
          .key("path")
          .value(f.path)
          .key("bytes")
          .value(f.size)
          .key("blob")
          .value(f.etag)
          .end_object();
    w.end_array().end_object();
  }

  static void print_json(const std::vector<hub::CachedRepo>& repos, const std::string& root) {
    JsonWriter w;
    w.begin_object().key("cache").value(root).key("models").begin_array();
    for (const hub::CachedRepo& r : repos) {
      w.begin_object()
          .key("name")
          .value(r.repo())
          .key("bytes")
          .value(r.bytes)
          .key("unfinished_bytes")
          .value(r.unfinished);
      w.key("snapshots").begin_array();
      for (const hub::CachedSnapshot& s : r.snapshots) write_snapshot(w, r, s);
      w.end_array().end_object();
    }
    print(w.end_array().end_object().text() + "\n");
  }
};

}  // namespace

COMMAND(ls, Ls)

}  // namespace supersonic::cli
