// Reading and writing the cache's layout; see the header. Removing is in remove.cpp.
#include "hub/cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "core/error.h"
#include "io/output_file.h"

namespace supersonic::hub {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPrefix = "models--";
constexpr std::size_t kMostEntries = 200'000;

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.pop_back();
  return text;
}

// "models--OWNER--NAME" of OWNER/NAME. Names have no "--", so this can be turned back.
std::string folder_name(const std::string& repo) {
  std::string out(kPrefix);
  return out + repo.substr(0, repo.find('/')) + "--" + repo.substr(repo.find('/') + 1);
}

std::optional<ModelName> name_of_folder(const std::string& folder) {
  if (!folder.starts_with(kPrefix)) return std::nullopt;
  const std::string rest = folder.substr(kPrefix.size());
  const std::size_t mark = rest.find("--");
  if (mark == rest.npos) return std::nullopt;
  return parse_name(rest.substr(0, mark) + "/" + rest.substr(mark + 2));
}

// The blob that a link of a snapshot points to; empty where it points elsewhere.
std::string blob_of_link(const fs::path& link, const fs::path& repo) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  if (error) return {};
  const fs::path full =
      (target.is_absolute() ? target : link.parent_path() / target).lexically_normal();
  return full.parent_path() == (repo / "blobs").lexically_normal() ? full.filename().string() : "";
}

// Files below a folder, sorted by path; symbolic links to folders are not followed.
std::vector<RepoFile> files_below(const fs::path& folder, const fs::path& repo) {
  std::vector<RepoFile> out;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end;
       !error && it != end && out.size() < kMostEntries; it.increment(error)) {
    RepoFile file;
    file.path = it->path().lexically_relative(folder).string();
    struct stat info {};
    if (!path_problem(file.path).empty() || ::stat(it->path().c_str(), &info) != 0 ||
        !S_ISREG(info.st_mode))
      continue;
    if (it->is_symlink(error)) file.etag = blob_of_link(it->path(), repo);
    file.size = static_cast<std::uint64_t>(info.st_size);
    out.push_back(std::move(file));
  }
  std::sort(out.begin(), out.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  return out;
}

std::map<std::string, std::vector<std::string>> refs_of(const fs::path& repo) {
  std::map<std::string, std::vector<std::string>> out;
  for (const RepoFile& f : files_below(repo / "refs", repo)) {
    if (f.size > 200) continue;
    const std::string commit = trimmed(io::read_file((repo / "refs" / f.path).string(), 200));
    if (is_commit(commit)) out[commit].push_back(f.path);
  }
  return out;
}

CachedSnapshot read_snapshot(const fs::path& folder, const fs::path& repo) {
  CachedSnapshot s;
  s.commit = folder.filename().string();
  s.files = files_below(folder, repo);
  for (const RepoFile& f : s.files) {
    struct stat info {};
    if (::stat((folder / f.path).c_str(), &info) != 0) continue;
    s.last_used = std::max<std::int64_t>(s.last_used, info.st_atime);
    s.last_changed = std::max<std::int64_t>(s.last_changed, info.st_mtime);
  }
  return s;
}

std::uint64_t unfinished_bytes(const fs::path& blobs) {
  std::uint64_t n = 0;
  std::error_code error;
  for (fs::directory_iterator it(blobs, error), end; !error && it != end; it.increment(error)) {
    struct stat info {};
    if (it->path().extension() == ".incomplete" && ::lstat(it->path().c_str(), &info) == 0)
      n += static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  return n;
}

}  // namespace

std::uint64_t CachedSnapshot::bytes() const {
  std::uint64_t n = 0;
  for (const RepoFile& f : files) n += f.size;
  return n;
}

Cache::Cache(const Settings& settings) : root_(settings.cache), symlinks_(settings.symlinks) {}

std::string Cache::folder(const std::string& repo) const {
  return (fs::path(root_) / folder_name(repo)).string();
}
std::string Cache::blob(const std::string& repo, const std::string& etag) const {
  return (fs::path(folder(repo)) / "blobs" / etag).string();
}
std::string Cache::snapshot(const std::string& repo, const std::string& commit) const {
  return (fs::path(folder(repo)) / "snapshots" / commit).string();
}

std::optional<std::string> Cache::commit_of(const std::string& repo,
                                            const std::string& revision) const {
  std::string commit = revision;
  std::error_code error;
  if (!is_commit(revision)) {
    const fs::path ref = fs::path(folder(repo)) / "refs" / revision;
    if (!fs::is_regular_file(ref, error)) return std::nullopt;
    commit = trimmed(io::read_file(ref.string(), 200));
  }
  if (!is_commit(commit) || !fs::is_directory(snapshot(repo, commit), error)) return std::nullopt;
  return commit;
}

std::vector<RepoFile> Cache::files(const std::string& repo, const std::string& commit) const {
  return files_below(snapshot(repo, commit), folder(repo));
}

CachedRepo Cache::read_repo(const std::string& folder_name) const {
  const auto name = name_of_folder(folder_name);
  CachedRepo out;
  out.owner = name->owner, out.name = name->name;
  const fs::path repo = fs::path(root_) / folder_name;
  out.folder = repo.string();
  auto refs = refs_of(repo);
  std::error_code error;
  for (fs::directory_iterator it(repo / "snapshots", error), end; !error && it != end;
       it.increment(error)) {
    if (!is_commit(it->path().filename().string()) || it->is_symlink(error)) continue;
    out.snapshots.push_back(read_snapshot(it->path(), repo));
    out.snapshots.back().refs = refs[out.snapshots.back().commit];
  }
  std::sort(out.snapshots.begin(), out.snapshots.end(),
            [](const CachedSnapshot& a, const CachedSnapshot& b) {
              return a.last_changed > b.last_changed;
            });
  std::set<std::string> counted;
  for (const CachedSnapshot& s : out.snapshots)
    for (const RepoFile& f : s.files)
      if (f.etag.empty() || counted.insert(f.etag).second) out.bytes += f.size;
  out.unfinished = unfinished_bytes(repo / "blobs");
  return out;
}

std::vector<CachedRepo> Cache::list() const {
  std::vector<CachedRepo> out;
  std::error_code error;
  for (fs::directory_iterator it(root_, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name_of_folder(name) && it->is_directory(error)) out.push_back(read_repo(name));
  }
  std::sort(out.begin(), out.end(),
            [](const CachedRepo& a, const CachedRepo& b) { return a.repo() < b.repo(); });
  return out;
}

std::optional<CachedRepo> Cache::find(const std::string& repo) const {
  std::error_code error;
  if (!fs::is_directory(folder(repo), error)) return std::nullopt;
  return read_repo(folder_name(repo));
}

void make_folders_below(const std::string& root, const std::string& relative) {
  fs::path at(root);
  for (const fs::path& part : fs::path(relative)) {
    at /= part;
    if (::mkdir(at.c_str(), 0777) != 0 && errno != EEXIST) io::fail_write(at.string(), errno);
    struct stat info {};
    CHECK(::lstat(at.c_str(), &info) == 0 && S_ISDIR(info.st_mode),
          "{}: is no folder of the cache's own (a link or a file): remove it", at.string());
  }
}

void Cache::prepare(const std::string& repo) const {
  io::make_directories(root_);
  const std::string tag = (fs::path(root_) / "CACHEDIR.TAG").string();
  std::error_code error;
  if (!fs::exists(tag, error))
    io::write_file(tag,
                   "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of models; it can be "
                   "downloaded again.\n");
  // A repository's folder may be a link that its owner has made, to another disk for example.
  for (const char* part : {"blobs", "snapshots", "refs"})
    io::make_directories((fs::path(folder(repo)) / part).string());
  io::make_directories((fs::path(root_) / ".locks" / folder_name(repo)).string());
}

void Cache::set_ref(const std::string& repo, const std::string& revision,
                    const std::string& commit) const {
  if (revision == commit) return;
  const fs::path refs = fs::path(folder(repo)) / "refs";
  make_folders_below(refs.string(), fs::path(revision).parent_path().string());
  io::write_file((refs / revision).string(), commit);
}

bool Cache::has(const std::string& repo, const std::string& commit, const RepoFile& file) const {
  std::error_code error;
  const fs::path path = fs::path(snapshot(repo, commit)) / file.path;
  return fs::is_regular_file(path, error) && fs::file_size(path, error) == file.size;
}

void Cache::place(const std::string& repo, const std::string& commit, const RepoFile& file) const {
  const fs::path inside = fs::path("snapshots") / commit / file.path;
  make_folders_below(folder(repo), inside.parent_path().string());
  const std::string path = (fs::path(folder(repo)) / inside).string();
  std::string target = "../../";
  for (const char c : file.path)
    if (c == '/') target += "../";
  target += "blobs/" + file.etag;
  // Made beside its place and renamed, so that whatever was there goes at once.
  const std::string temporary = fmt::format("{}.link-{}", path, ::getpid());
  ::unlink(temporary.c_str());
  if (symlinks_ && ::symlink(target.c_str(), temporary.c_str()) == 0) {
    if (::rename(temporary.c_str(), path.c_str()) == 0) return;
    const int error = errno;
    ::unlink(temporary.c_str());
    io::fail_write(path, error);
  }
  if (symlinks_ && errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
    io::fail_write(path, errno);
  if (::rename(blob(repo, file.etag).c_str(), path.c_str()) != 0) io::fail_write(path, errno);
}

void Cache::touch(const std::string& path) {
  const timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    [[maybe_unused]] const int done = ::utimensat(AT_FDCWD, path.c_str(), times, 0);
    return;
  }
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
    if (it->is_regular_file(error)) {
      [[maybe_unused]] const int done = ::utimensat(AT_FDCWD, it->path().c_str(), times, 0);
    }
}

std::string BlobLock::lock_path(const Cache& cache, const std::string& repo,
                                const std::string& etag) {
  return (fs::path(cache.root()) / ".locks" / folder_name(repo) / (etag + ".lock")).string();
}

// Whoever gives a lock back may remove its file: what was locked must still be what is found there.
bool BlobLock::try_lock() {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
  if (fd_ < 0) io::fail_write(path_, errno);
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) {
    struct stat held {
    }, there{};
    if (::fstat(fd_, &held) == 0 && ::stat(path_.c_str(), &there) == 0 &&
        held.st_ino == there.st_ino)
      return true;
  } else if (errno != EWOULDBLOCK) {
    return true;  // a file system without locks: the hash is checked all the same
  }
  ::close(fd_);
  fd_ = -1;
  return false;
}

BlobLock::~BlobLock() {
  if (fd_ >= 0) ::close(fd_);
}

void BlobLock::pause() { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }
void BlobLock::stop() { fail(ErrorKind::interrupted, "interrupted"); }

bool BlobLock::any(const Cache& cache, const std::string& repo) {
  const fs::path folder = fs::path(lock_path(cache, repo, "x")).parent_path();
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const int fd = ::open(it->path().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) continue;
    const bool held = ::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    ::close(fd);
    if (held) return true;
  }
  return false;
}

}  // namespace supersonic::hub
