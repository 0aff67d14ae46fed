#include "io/staged_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "io/output_file.h"

namespace supersonic::io {
namespace {

namespace fs = std::filesystem;

// "out/" and "out" are the same place.
fs::path normal(const std::string& path) {
  fs::path p = fs::absolute(path).lexically_normal();
  return p.has_filename() ? p : p.parent_path();
}

bool holds(const fs::path& output, const std::string& input) {
  std::error_code ignored;
  const fs::path out = fs::weakly_canonical(output, ignored),
                 in = fs::weakly_canonical(normal(input), ignored);
  const auto [end, rest] = std::mismatch(out.begin(), out.end(), in.begin(), in.end());
  return end == out.end();
}

void check_replaceable(const fs::path& path, const std::string& shown) {
  if (!fs::is_directory(path) || fs::is_empty(path)) return;
  if (!fs::exists(path / "config.json") && !fs::exists(path / "adapter_config.json"))
    fail(ErrorKind::usage,
         "{}: is a folder of something else than a model, which --force does not replace: remove "
         "it, or choose another name",
         shown);
}

void rename_or_fail(const std::string& from, const std::string& to) {
  CHECK(::rename(from.c_str(), to.c_str()) == 0, "{}: cannot be renamed into place: {}", to,
        std::strerror(errno));
}

}  // namespace

StagedOutput::StagedOutput(std::string path, Kind kind, bool replace,
                           std::span<const std::string> inputs)
    : kind_(kind), replace_(replace) {
  if (path.empty()) fail(ErrorKind::usage, "the output has no name");
  const fs::path final_path = normal(path);
  path_ = final_path.string();
  for (const std::string& input : inputs)
    if (!input.empty() && holds(final_path, input))
      fail(ErrorKind::usage, "{}: holds the input {}: choose another name for the output", path,
           input);
  std::error_code error;
  const bool empty_folder = kind == Kind::folder && fs::is_directory(final_path, error) &&
                            fs::is_empty(final_path, error);
  if (fs::exists(final_path, error) && !replace && !empty_folder)
    fail(ErrorKind::usage, "{}: exists already: choose another name, or give --force to replace it",
         path);
  if (kind == Kind::folder && fs::exists(final_path, error) && !fs::is_directory(final_path, error))
    fail(ErrorKind::usage,
         "{}: is a file, where a folder is to be written: remove it, or choose another name (one "
         "that ends in .gguf is a file)",
         path);
  check_replaceable(final_path, path);
  make_directories(final_path.parent_path().string());
  hidden_ = (final_path.parent_path() /
             fmt::format(".{}.part-{}", final_path.filename().string(), ::getpid()))
                .string();
  // One with the own process id is of a process that was killed: ids repeat, in containers above
  // all.
  fs::remove_all(hidden_, error);
  if (!fs::create_directory(hidden_, error)) fail_write(path, error ? error.value() : EEXIST);
  staged_ = (fs::path(hidden_) / final_path.filename()).string();
  if (kind == Kind::folder) fs::create_directory(staged_);
}

StagedOutput::~StagedOutput() {
  std::error_code ignored;
  if (!hidden_.empty()) fs::remove_all(hidden_, ignored);
}

void StagedOutput::commit() {
  const std::string parent = fs::path(path_).parent_path().string();
  if (kind_ == Kind::folder) sync_directory(staged_);
  // A file, or a folder in place of none or an empty one, takes its name in one rename. A full
  // folder changes places with it.
  const bool exchange = fs::is_directory(path_) && !fs::is_empty(path_);
  if (!exchange) {
    rename_or_fail(staged_, path_);
  } else if (::renameat2(AT_FDCWD, staged_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) !=
             0) {
    rename_or_fail(path_, hidden_ + "/replaced");
    rename_or_fail(staged_, path_);
  }
  sync_directory(parent);
  std::error_code ignored;
  fs::remove_all(hidden_, ignored);
  hidden_.clear();
}

std::string StagedOutput::final_path(const std::string& staged_file) const {
  return (fs::path(path_).parent_path() / fs::path(staged_file).filename()).string();
}

void StagedOutput::commit_files(std::span<const std::string> staged_files) {
  for (const std::string& file : staged_files)
    if (!replace_ && fs::exists(final_path(file)))
      fail(ErrorKind::usage,
           "{}: exists already: choose another name, or give --force to replace it",
           final_path(file));
  for (std::size_t i = staged_files.size(); i-- > 0;)
    rename_or_fail(staged_files[i], final_path(staged_files[i]));
  sync_directory(fs::path(path_).parent_path().string());
  std::error_code ignored;
  fs::remove_all(hidden_, ignored);
  hidden_.clear();
}

Error StagedOutput::renamed(const Error& error) const {
  std::string message = error.what();
  const std::string parent = fs::path(path_).parent_path().string();
  const std::pair<std::string, std::string> shown[] = {
      {hidden_ + "/", parent.ends_with("/") ? parent : parent + "/"}, {hidden_, path_}};
  for (const auto& [hidden, name] : shown)
    for (std::size_t at = 0; (at = message.find(hidden, at)) != std::string::npos;
         at += name.size())
      message.replace(at, hidden.size(), name);
  return Error(message, error.kind());
}

}  // namespace supersonic::io
