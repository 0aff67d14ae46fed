// Links go before the blobs that they point to, so that a process which is killed in between leaves
// blobs without links (the next removal takes them), never links without blobs.
#include "hub/remove.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "core/nearest.h"

namespace supersonic::hub {
namespace {

namespace fs = std::filesystem;

void unlink_or_fail(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  CHECK(!error, "{}: cannot be removed: {}", path.string(), error.message());
}

void remove_all_or_fail(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  CHECK(!error, "{}: cannot be removed: {}", path.string(), error.message());
}

// A repository's folder with all that is in it; also what is in it where it is a link to a folder
// elsewhere.
void remove_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_symlink(folder, error)) {
    for (const char* part : {"refs", "snapshots", "blobs", "trees", ".no_exist"})
      remove_all_or_fail(folder / part);
    return unlink_or_fail(folder);
  }
  // Under another name first: at no moment is half a model to be found.
  const fs::path gone =
      folder.parent_path() / fmt::format(".removed-{}-{}", folder.filename().string(), ::getpid());
  fs::rename(folder, gone, error);
  CHECK(!error, "{}: cannot be removed: {}", folder.string(), error.message());
  remove_all_or_fail(gone);
}

// Empty folders between a path and `stop`, which stays.
void remove_empty_parents(fs::path path, const fs::path& stop) {
  std::error_code error;
  for (path = path.parent_path(); path != stop && fs::is_empty(path, error) && !error;
       path = path.parent_path())
    if (!fs::remove(path, error)) return;
}

// The snapshots that a name means, and the paths in each that go (empty: all).
struct Part {
  const CachedSnapshot* snapshot;
  std::set<std::string> paths;
};

std::vector<Part> parts_of(const Cache& cache, const CachedRepo& repo, const ModelName& name) {
  std::vector<Part> out;
  std::string problem;
  const auto commit =
      name.revision_given ? cache.commit_of(repo.repo(), name.revision) : std::nullopt;
  if (name.revision_given && !commit)
    fail(ErrorKind::bad_file,
         "{}: the cache has no such revision; 'supersonic ls' shows which it has", name.text());
  for (const CachedSnapshot& s : repo.snapshots) {
    if (commit && s.commit != *commit) continue;
    Part part{&s, {}};
    if (!name.choice.empty()) {
      try {
        for (const RepoFile& f : select_files(s.files, name.choice, repo.repo()).files)
          part.paths.insert(f.path);
      } catch (const Error& e) {
        problem = e.what();
        continue;
      }
    }
    out.push_back(std::move(part));
  }
  if (out.empty())
    fail(ErrorKind::bad_file, "in the cache, {}",
         problem.empty() ? name.text() + " has no files" : problem);
  return out;
}

// Blobs with a link from what stays, and the size on the disk of those without.
void collect_blobs(const CachedRepo& repo, const std::vector<Part>& parts, Removal& out) {
  std::set<std::string> kept;
  for (const CachedSnapshot& s : repo.snapshots) {
    const auto part =
        std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.snapshot == &s; });
    for (const RepoFile& f : s.files) {
      const bool goes =
          part != parts.end() && (part->paths.empty() || part->paths.contains(f.path));
      if (!goes) kept.insert(f.etag);
      if (goes && f.etag.empty()) out.bytes += f.size;
    }
  }
  std::error_code error;
  for (fs::directory_iterator it(fs::path(repo.folder) / "blobs", error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (kept.contains(name) || !it->is_regular_file(error)) continue;
    const std::string etag = name.substr(0, name.find('.'));
    const bool ours =
        out.whole || std::any_of(parts.begin(), parts.end(), [&](const Part& p) {
          return std::any_of(
              p.snapshot->files.begin(), p.snapshot->files.end(), [&](const RepoFile& f) {
                return f.etag == etag && (p.paths.empty() || p.paths.contains(f.path));
              });
        });
    if (!ours || kept.contains(etag)) continue;
    out.blobs.push_back(name);
    out.bytes += fs::file_size(it->path(), error);
  }
}

}  // namespace

Removal plan_removal(const Cache& cache, const ModelName& name) {
  const auto repo = cache.find(name.repo());
  if (!repo) {
    std::vector<std::string> names;
    for (const CachedRepo& r : cache.list()) names.push_back(r.repo());
    const std::string meant = nearest(name.repo(), names);
    fail(ErrorKind::bad_file, "{}: is not in the cache{}; 'supersonic ls' shows what is",
         name.repo(), meant.empty() ? "" : fmt::format("; did you mean {}?", meant));
  }
  Removal out;
  out.repo = repo->repo(), out.folder = repo->folder;
  if (!name.revision_given && name.choice.empty()) {
    out.whole = true;
    for (const CachedSnapshot& s : repo->snapshots) out.commits.push_back(s.commit);
    std::vector<Part> all;
    for (const CachedSnapshot& s : repo->snapshots) all.push_back({&s, {}});
    collect_blobs(*repo, all, out);
    return out;
  }
  const auto parts = parts_of(cache, *repo, name);
  collect_blobs(*repo, parts, out);
  for (const Part& p : parts) {
    if (p.paths.empty() || p.paths.size() == p.snapshot->files.size()) {
      out.commits.push_back(p.snapshot->commit);
      out.refs.insert(out.refs.end(), p.snapshot->refs.begin(), p.snapshot->refs.end());
      continue;
    }
    for (const std::string& path : p.paths)
      out.files.push_back("snapshots/" + p.snapshot->commit + "/" + path);
  }
  out.whole = out.commits.size() == repo->snapshots.size();
  return out;
}

void remove(const Cache& cache, const Removal& r) {
  if (BlobLock::any(cache, r.repo))
    fail(ErrorKind::failure,
         "{}: a process is downloading into it now: wait until it has ended, or stop it", r.repo);
  const fs::path folder(r.folder);
  std::error_code error;
  if (r.whole) {
    remove_folder(folder);
    fs::remove_all(fs::path(BlobLock::lock_path(cache, r.repo, "x")).parent_path(), error);
    return;
  }
  for (const std::string& ref : r.refs) {
    unlink_or_fail(folder / "refs" / ref);
    remove_empty_parents(folder / "refs" / ref, folder / "refs");
  }
  for (const std::string& commit : r.commits) {
    remove_all_or_fail(folder / "snapshots" / commit);
    fs::remove(folder / "trees" / (commit + ".json"), error);
    fs::remove_all(folder / ".no_exist" / commit, error);
  }
  for (const std::string& file : r.files) {
    unlink_or_fail(folder / file);
    remove_empty_parents(folder / file, folder / "snapshots");
  }
  for (const std::string& blob : r.blobs) unlink_or_fail(folder / "blobs" / blob);
}

}  // namespace supersonic::hub
