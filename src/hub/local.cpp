// Copies go through the page cache of mapped files into files that appear whole; see the header.
#include "hub/local.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "hub/download.h"
#include "io/mapped_file.h"
#include "io/output_file.h"

namespace supersonic::hub {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kPiece = std::size_t{4} << 20;
constexpr std::uint64_t kLargeFile = std::uint64_t{10} << 20;
constexpr std::size_t kMostEntries = 200'000;

// As repositories on the hub have it: weights, and what is large, by SHA-256.
bool large_by_rule(const RepoFile& f) {
  for (const char* end : {".safetensors", ".gguf", ".bin", ".model"})
    if (f.path.ends_with(end)) return f.size > 0;
  return f.size >= kLargeFile;
}

template <class Use>
void each_piece(const std::string& path, Use&& use) {
  const io::MappedFile file = io::MappedFile::open(path);
  const auto bytes = file.bytes();
  for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
    check_interrupt();
    use(bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
  }
}

std::string hash_of(const std::string& path, const RepoFile& f) {
  const auto digest = blob_digest(large_by_rule(f), f.size);
  each_piece(path, [&](std::span<const std::byte> piece) { digest->update(piece); });
  return digest->hex();
}

void copy_one(const std::string& from, const std::string& to, std::uint64_t size,
              const std::function<void(std::size_t)>& copied) {
  io::OutputFile out(to, size);
  each_piece(from, [&](std::span<const std::byte> piece) {
    out.write(piece);
    copied(piece.size());
  });
  out.commit();
}

// A commit's name for a content that no git repository has: a hash of paths and contents.
std::string commit_for(const std::vector<RepoFile>& files) {
  const auto digest = open_digest(Digest::Kind::sha1);
  for (const RepoFile& f : files) {
    const std::string line = f.path + '\0' + f.etag + '\n';
    digest->update(std::as_bytes(std::span(line)));
  }
  return digest->hex();
}

}  // namespace

std::vector<RepoFile> list_folder(const std::string& folder) {
  std::vector<RepoFile> out;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end;
       !error && it != end && out.size() < kMostEntries; it.increment(error)) {
    if (it->path().filename().string().starts_with(".")) {
      if (it->is_directory(error)) it.disable_recursion_pending();
      continue;
    }
    RepoFile f;
    f.path = it->path().lexically_relative(folder).string();
    if (!it->is_regular_file(error) || !path_problem(f.path).empty()) continue;
    f.size = it->file_size(error);
    out.push_back(std::move(f));
  }
  CHECK_FILE(!error, "{}: cannot be listed: {}", folder, error.message());
  std::sort(out.begin(), out.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  return out;
}

LocalModel local_model(const std::string& path) {
  std::error_code error;
  LocalModel out;
  if (fs::is_directory(path, error)) {
    out.folder = path;
    out.selection = select_files(list_folder(path), "", path);
    return out;
  }
  CHECK_FILE(fs::is_regular_file(path, error), "{}: there is no such file or folder", path);
  const fs::path file = path;
  out.folder = file.parent_path().empty() ? "." : file.parent_path().string();
  std::vector<RepoFile> beside;
  for (fs::directory_iterator it(out.folder, error), end; !error && it != end; it.increment(error))
    if (it->is_regular_file(error))
      beside.push_back({it->path().filename().string(), it->file_size(error), ""});
  std::sort(beside.begin(), beside.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  out.selection = select_files(beside, file.filename().string(), out.folder);
  CHECK_FILE(out.selection.complete, "{}: parts of the split file are missing beside it", path);
  return out;
}

void copy_files(const LocalModel& model, const std::string& folder, const CopyProgress& progress) {
  std::uint64_t done = 0;
  const std::uint64_t total = model.selection.bytes();
  for (const RepoFile& f : model.selection.files) {
    make_folders_below(folder, fs::path(f.path).parent_path().string());
    copy_one((fs::path(model.folder) / f.path).string(), (fs::path(folder) / f.path).string(),
             f.size, [&](std::size_t n) {
               done += n;
               if (progress) progress(done, total);
             });
  }
}

std::string adopt(const LocalModel& model, const Cache& cache, const ModelName& name, bool replace,
                  const CopyProgress& progress) {
  std::vector<RepoFile> files = model.selection.files;
  for (RepoFile& f : files) f.etag = hash_of((fs::path(model.folder) / f.path).string(), f);
  const std::string commit = commit_for(files);
  const auto taken = cache.commit_of(name.repo(), name.revision);
  if (taken && *taken != commit && !replace)
    fail(ErrorKind::usage,
         "{}: the cache has another model of this name: choose another one, or give --force to put "
         "this in its place",
         name.repo());
  cache.prepare(name.repo());
  std::uint64_t done = 0;
  const std::uint64_t total = model.selection.bytes();
  const auto copied = [&](std::size_t n) {
    done += n;
    if (progress) progress(done, total);
  };
  for (const RepoFile& f : files) {
    const std::string from = fs::canonical(fs::path(model.folder) / f.path).string(),
                      blob = cache.blob(name.repo(), f.etag);
    const BlobLock lock(
        cache, name.repo(), f.etag, [] {}, [] { return !interrupted(); });
    std::error_code error;
    const bool there = fs::is_regular_file(blob, error) && fs::file_size(blob, error) == f.size;
    // The content of another model of this cache never changes, and may have two names.
    const bool cached = from.starts_with(cache.root() + "/models--");
    if (there || (cached && ::link(from.c_str(), blob.c_str()) == 0))
      copied(f.size);
    else
      copy_one(from, blob, f.size, copied);
    if (!cache.has(name.repo(), commit, f)) cache.place(name.repo(), commit, f);
  }
  cache.set_ref(name.repo(), name.revision, commit);
  const fs::path snapshot = cache.snapshot(name.repo(), commit);
  return model.selection.main.empty() ? snapshot.string()
                                      : (snapshot / model.selection.main).string();
}

}  // namespace supersonic::hub
