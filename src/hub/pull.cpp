// The order of a pull: ask, choose, check the room, transfer, and at the end let the branch's name
// point to the new commit. A pull that does not end leaves the name at what was whole before.
#include "hub/pull.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <tuple>

#include "core/error.h"
#include "core/machine.h"
#include "core/nearest.h"
#include "hub/download.h"
#include "hub/workers.h"
#include "io/json.h"

namespace supersonic::hub {
namespace {

namespace fs = std::filesystem;
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::uint64_t kSpare = std::uint64_t{16} << 20;

std::string gib(std::uint64_t bytes) {
  const auto n = static_cast<double>(bytes);
  return n >= 1e9 ? fmt::format("{:.2f} GiB", n / (1 << 30))
                  : fmt::format("{:.1f} MiB", n / (1 << 20));
}

// The files that the index in a folder names, where there is one that can be read.
std::set<std::string> indexed_files(const std::string& folder) {
  std::set<std::string> out;
  const std::string path = (fs::path(folder) / kIndex).string();
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return out;
  const auto index = io::JsonDocument::read(path);
  for (const auto& [tensor, file] : index.root().find("weight_map").members()) {
    const auto name = file.text();
    if (!name) continue;
    check_path(*name, path);
    out.insert(*name);
  }
  return out;
}

bool listed(const std::vector<RepoFile>& files, const std::string& path) {
  return std::any_of(files.begin(), files.end(), [&](const RepoFile& f) { return f.path == path; });
}

// What a whole model of this kind lacks in its folder; empty: nothing.
std::string lacking(const Selection& s, const std::string& folder) {
  if (!s.complete) return fmt::format("parts of {}", s.main);
  if (s.kind != Selection::Kind::folder) return {};
  for (const std::string& file : indexed_files(folder))
    if (!listed(s.files, file)) return file;
  return {};
}

// Files of one content together, so that it comes once. Small ones first: what is refused is
// refused at once, and the large ones end together.
std::vector<std::vector<RepoFile>> by_content(std::vector<RepoFile> files) {
  std::stable_sort(files.begin(), files.end(), [](const RepoFile& a, const RepoFile& b) {
    return std::tie(a.size, a.etag) < std::tie(b.size, b.etag);
  });
  std::vector<std::vector<RepoFile>> groups;
  for (RepoFile& f : files) {
    if (groups.empty() || groups.back()[0].etag != f.etag) groups.emplace_back();
    groups.back().push_back(std::move(f));
  }
  return groups;
}

std::string near_name(const Cache& cache, const ModelName& name) {
  std::vector<std::string> names;
  for (const CachedRepo& r : cache.list()) names.push_back(r.repo());
  const std::string meant = nearest(name.repo(), names);
  return meant.empty() ? "" : fmt::format("; did you mean {}?", meant);
}

[[noreturn]] void not_cached(const Cache& cache, const ModelName& name) {
  const auto repo = cache.find(name.repo());
  if (!repo || repo->snapshots.empty())
    fail(ErrorKind::bad_file,
         "{}: there is no such file or folder, and no such model in the cache{}; 'supersonic pull "
         "{}' downloads it",
         name.text(), repo ? "" : near_name(cache, name), name.text());
  if (repo->unfinished)
    fail(ErrorKind::bad_file,
         "{}: its download has not ended; 'supersonic pull {}' goes on where it stopped",
         name.text(), name.text());
  std::string there;
  for (const CachedSnapshot& s : repo->snapshots)
    there += (there.empty() ? "" : ", ") + (s.refs.empty() ? s.commit : s.refs[0]);
  fail(ErrorKind::bad_file,
       "{}: the cache has other revisions of this model alone ({}); 'supersonic pull {}' downloads "
       "this one",
       name.text(), there, name.text());
}

Selection select_cached(const Cache& cache, const ModelName& name, const std::string& commit) {
  const auto files = cache.files(name.repo(), commit);
  try {
    return select_files(files, name.choice, name.repo());
  } catch (const Error& e) {
    fail(ErrorKind::bad_file, "in the cache, {}; 'supersonic pull {}' looks on the hub", e.what(),
         name.text());
  }
}

std::string path_of(const Cache& cache, const ModelName& name, const std::string& commit,
                    const Selection& s) {
  const fs::path folder = cache.snapshot(name.repo(), commit);
  return s.main.empty() ? folder.string() : (folder / s.main).string();
}

}  // namespace

Found find_cached(const Cache& cache, const ModelName& name) {
  const auto commit = cache.commit_of(name.repo(), name.revision);
  if (!commit) not_cached(cache, name);
  Found out{.path = {}, .commit = *commit, .selection = select_cached(cache, name, *commit)};
  const std::string lacks = lacking(out.selection, cache.snapshot(name.repo(), *commit));
  if (!lacks.empty())
    fail(ErrorKind::bad_file,
         "{}: not all of it is in the cache ({} is missing): 'supersonic pull {}' fetches the rest",
         name.text(), lacks, name.text());
  out.path = path_of(cache, name, *commit, out.selection);
  return out;
}

Pull::Pull(const Settings& settings, const ModelName& name, const Watch& watch)
    : settings_(settings), watch_(watch), name_(name), cache_(settings) {
  if (settings_.offline) {
    try {
      const Found found = find_cached(cache_, name_);
      commit_ = found.commit, selection_ = found.selection;
    } catch (const Error& e) {
      fail(ErrorKind::network, "{} (not now: --offline, or HF_HUB_OFFLINE)", e.what());
    }
    return;
  }
  Client client(settings_, watch_);
  commit_ = client.commit_of(name_.repo(), name_.revision);
  tree_ = client.tree(name_.repo(), commit_);
  selection_ = select_files(tree_, name_.choice, name_.repo());
  if (!selection_.complete)
    fail(ErrorKind::bad_file, "{}: parts of {} are missing on the hub", name_.text(),
         selection_.main);
}

std::uint64_t Pull::missing() const {
  std::uint64_t n = 0;
  if (settings_.offline) return n;
  for (const auto& same : by_content(selection_.files)) {
    std::uint64_t least = same[0].size;
    for (const RepoFile& f : same)
      least = std::min(least, missing_bytes(cache_, {name_.repo(), commit_, f}));
    n += least;
  }
  return n;
}

void Pull::check_room(std::uint64_t needed) const {
  const std::uint64_t free = free_disk_bytes(cache_.root());
  if (needed == 0 || free >= needed + kSpare) return;
  fail(ErrorKind::failure,
       "{}: {} are to be downloaded, and {} are free in {}: free some room ('supersonic ls', "
       "'supersonic rm'), or set "
       "HF_HUB_CACHE to a folder on another disk",
       name_.text(), gib(needed), gib(free), cache_.root());
}

std::uint64_t Pull::fetch(const std::vector<RepoFile>& files, int jobs,
                          const std::function<void(const Progress&)>& progress) {
  Counters counters;
  std::atomic<std::size_t> finished{0};
  std::uint64_t total = 0;
  for (const RepoFile& f : files) total += f.size;
  const auto groups = by_content(files);
  run_workers(
      settings_, watch_, groups.size(), jobs,
      [&](Client& client, std::size_t i) {
        for (const RepoFile& f : groups[i]) {
          hub::download(client, cache_, {name_.repo(), commit_, f}, counters);
          ++finished;
        }
      },
      [&] {
        if (progress) progress({counters.arrived, total, finished, files.size()});
      });
  return counters.received;
}

// Shards that the index names and no rule of names has chosen.
std::vector<RepoFile> Pull::unlisted_shards() const {
  std::vector<RepoFile> more;
  if (selection_.kind != Selection::Kind::folder) return more;
  for (const std::string& path : indexed_files(cache_.snapshot(name_.repo(), commit_))) {
    if (listed(selection_.files, path)) continue;
    const auto it =
        std::find_if(tree_.begin(), tree_.end(), [&](const RepoFile& f) { return f.path == path; });
    CHECK_FILE(it != tree_.end(), "{}: {} names {}, which the repository does not have",
               name_.text(), kIndex, path);
    more.push_back(*it);
  }
  return more;
}

std::uint64_t Pull::download(int jobs, const std::function<void(const Progress&)>& progress) {
  if (settings_.offline) return 0;
  cache_.prepare(name_.repo());
  check_room(missing());
  std::uint64_t received = fetch(selection_.files, jobs, progress);
  if (const auto more = unlisted_shards(); !more.empty()) {
    received += fetch(more, jobs, progress);
    selection_.files.insert(selection_.files.end(), more.begin(), more.end());
  }
  cache_.set_ref(name_.repo(), name_.revision, commit_);
  return received;
}

std::string Pull::path() const { return path_of(cache_, name_, commit_, selection_); }

}  // namespace supersonic::hub
