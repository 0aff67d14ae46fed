// Writing and finding checkpoints; see the header for the layout and the guarantee.
#include "io/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <set>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "io/json.h"
#include "io/json_fields.h"
#include "io/json_tree.h"
#include "io/mapped_file.h"
#include "io/output_file.h"

namespace supersonic::io {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-", kTemporary = ".tmp-", kManifest = "manifest.json";
constexpr JsonLimits kLimits{
    .max_bytes = std::size_t{16} << 20, .max_depth = 64, .max_values = 1'000'000};

class Hash {
 public:
  Hash() : state_(XXH3_createState()) { XXH3_128bits_reset(state_); }
  ~Hash() { XXH3_freeState(state_); }
  Hash(const Hash&) = delete;
  void add(std::span<const std::byte> bytes) {
    XXH3_128bits_update(state_, bytes.data(), bytes.size());
  }
  std::string hex() const {
    const auto h = XXH3_128bits_digest(state_);
    return fmt::format("{:016x}{:016x}", h.high64, h.low64);
  }

 private:
  XXH3_state_t* state_;
};

bool is_plain_name(std::string_view name) {
  return !name.empty() && name[0] != '.' && name != kManifest && name.size() <= 200 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return c > ' ' && c != '/' && c != '\\' && c < 127; });
}

std::string step_name(std::int64_t step) { return fmt::format("{}{:06}", kPrefix, step); }

std::optional<std::int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

// Newest first.
std::vector<std::pair<std::int64_t, fs::path>> list_steps(const std::string& root) {
  std::vector<std::pair<std::int64_t, fs::path>> steps;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error))
    if (const auto step = step_of(it->path().filename().string()))
      steps.emplace_back(*step, it->path());
  std::sort(steps.begin(), steps.end(),
            [](const auto& a, const auto& b) { return a.first > b.first; });
  return steps;
}

// Makes from appear as to, replacing what stands there, without a moment when neither is there.
void replace_directory(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  const int error = errno;
  CHECK(error == EEXIST || error == ENOTEMPTY, "{}: cannot put the checkpoint in place: {}",
        to.string(), std::strerror(error));
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
    // No exchange on this file system: the old one steps aside first.
    const fs::path aside = from.string() + "-old";
    CHECK(::rename(to.c_str(), aside.c_str()) == 0 && ::rename(from.c_str(), to.c_str()) == 0,
          "{}: cannot replace the older checkpoint of that step: {}", to.string(),
          std::strerror(errno));
    fs::rename(aside, from);
  }
  std::error_code ignored;
  fs::remove_all(from, ignored);
}

}  // namespace

struct CheckpointWriter::State {
  std::string root, temporary;
  std::int64_t step;
  JsonTree config;
  std::vector<CheckpointFile> files;
  std::optional<OutputFile> file;
  std::optional<Hash> hash;
  bool committed = false;
};

CheckpointWriter::CheckpointWriter(std::string root, std::int64_t step,
                                   std::string_view config_json)
    : state_(std::make_unique<State>()) {
  CHECK(step >= 0, "{}: a checkpoint of step {}", root, step);
  state_->root = std::move(root);
  state_->step = step;
  state_->config =
      JsonTree(JsonDocument(config_json, "the checkpoint's configuration", kLimits).root());
  make_directories(state_->root);
  static std::atomic<unsigned> counter{0};
  const std::string name = fmt::format("{}{}-{}-{}", kTemporary, ::getpid(), counter++, step);
  state_->temporary = (fs::path(state_->root) / name).string();
  std::error_code ignored;
  fs::remove_all(state_->temporary, ignored);
  make_directories(state_->temporary);
}

CheckpointWriter::~CheckpointWriter() {
  if (state_->committed) return;
  state_->file.reset();
  std::error_code ignored;
  fs::remove_all(state_->temporary, ignored);
}

std::string CheckpointWriter::path() const {
  return (fs::path(state_->root) / step_name(state_->step)).string();
}

template <class F>
void CheckpointWriter::named(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    std::string message = e.what();
    const std::string& hidden = state_->temporary;
    for (std::size_t at = message.find(hidden); at != message.npos; at = message.find(hidden, at))
      message.replace(at, hidden.size(), path());
    throw Error(message, e.kind());
  }
}

void CheckpointWriter::begin(std::string_view name, std::uint64_t expected_bytes) {
  end_file();
  CHECK(is_plain_name(name), "checkpoint: \"{}\" is not a plain file name", name);
  state_->files.push_back({std::string(name), {}, 0});
  named([&] {
    state_->file.emplace((fs::path(state_->temporary) / name).string(), expected_bytes,
                         OutputFile::Naming::direct);
  });
  state_->hash.emplace();
}

void CheckpointWriter::append(std::span<const std::byte> bytes) {
  CHECK(state_->file.has_value(), "checkpoint: data before a file was begun");
  state_->hash->add(bytes);
  named([&] { state_->file->write(bytes); });
}

void CheckpointWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  begin(name, bytes.size());
  append(bytes);
}

const std::string& CheckpointWriter::staging() const { return state_->temporary; }

void CheckpointWriter::adopt(std::string_view name) {
  end_file();
  CHECK(is_plain_name(name), "checkpoint: \"{}\" is not a plain file name", name);
  const MappedFile file = MappedFile::open((fs::path(state_->temporary) / name).string());
  Hash hash;
  hash.add(file.bytes());
  state_->files.push_back({std::string(name), hash.hex(), file.bytes().size()});
}

void CheckpointWriter::end_file() {
  CHECK(!state_->committed, "checkpoint: used after commit");
  if (!state_->file) return;
  state_->files.back().bytes = state_->file->size();
  state_->files.back().hash = state_->hash->hex();
  named([&] { state_->file->commit(); });
  state_->file.reset();
  state_->hash.reset();
}

void CheckpointWriter::commit() {
  end_file();
  std::set<std::string_view> names;
  for (const auto& f : state_->files)
    CHECK(names.insert(f.name).second, "checkpoint: {} is listed twice", f.name);
  JsonTree files = JsonTree::array();
  for (const auto& f : state_->files)
    files.push_back(JsonTree::object({{"name", f.name}, {"bytes", f.bytes}, {"xxh3_128", f.hash}}));
  const JsonTree manifest = JsonTree::object({{"format", "supersonic-checkpoint"},
                                              {"version", 1},
                                              {"step", state_->step},
                                              {"config", state_->config},
                                              {"files", files}});
  named([&] {
    write_file((fs::path(state_->temporary) / kManifest).string(), manifest.dump(2) + "\n");
  });
  sync_directory(state_->temporary);
  replace_directory(state_->temporary, path());
  state_->committed = true;
  sync_directory(state_->root);
}

std::string Checkpoint::file(std::string_view name) const {
  for (const auto& f : files)
    if (f.name == name) return (fs::path(path) / name).string();
  fail(ErrorKind::bad_file,
       "{}: the checkpoint has no file \"{}\"; it was written by another kind of run", path, name);
}

Checkpoint open_checkpoint(const std::string& path) {
  const std::string manifest_path = (fs::path(path) / kManifest).string();
  const JsonDocument root = JsonDocument::read(manifest_path, kLimits);
  const JsonFields f(root, manifest_path);
  if (f.string("format") != "supersonic-checkpoint") f.bad("format", "\"supersonic-checkpoint\"");
  (void)f.require_integer("version", 1, 1);
  Checkpoint c;
  c.path = path;
  c.step = f.require_integer("step", 0, INT64_MAX);
  c.config_json = f.has("config") ? f.find("config").dump() : "{}";
  const JsonView files = f.find("files");
  if (!files.is_array()) f.bad("files", "a list");
  for (const JsonView& item : files.items()) {
    const JsonFields e(item, manifest_path, "files[].");
    CheckpointFile entry{e.string("name").value_or(""), e.string("xxh3_128").value_or(""),
                         static_cast<std::uint64_t>(e.require_integer("bytes", 0, INT64_MAX))};
    if (!is_plain_name(entry.name)) e.bad("name", "a plain file name");
    const MappedFile file = MappedFile::open((fs::path(path) / entry.name).string());
    CHECK_FILE(file.bytes().size() == entry.bytes, "{}: {} bytes, the manifest says {}",
               file.path(), file.bytes().size(), entry.bytes);
    file.advise(MappedFile::Access::sequential);
    Hash hash;
    hash.add(file.bytes());
    CHECK_FILE(hash.hex() == entry.hash,
               "{}: its hash is not the one in the manifest; the file is damaged", file.path());
    c.files.push_back(std::move(entry));
  }
  return c;
}

CheckpointSearch newest_checkpoint(const std::string& root) {
  CheckpointSearch result;
  for (const auto& [step, path] : list_steps(root)) {
    try {
      Checkpoint c = open_checkpoint(path.string());
      CHECK_FILE(c.step == step, "{}: the manifest is of step {}", path.string(), c.step);
      result.newest = std::move(c);
      return result;
    } catch (const Error& e) {
      result.warnings.push_back(fmt::format("checkpoint skipped: {}", e.what()));
    }
  }
  return result;
}

void keep_newest(const std::string& root, std::size_t count, std::int64_t last) {
  CHECK(count >= 1, "at least one checkpoint must be kept");
  std::size_t kept = 0;
  for (const auto& [step, path] : list_steps(root)) {
    if (step <= last && kept++ < count) continue;
    // Renamed first: a removal that is interrupted must not leave a checkpoint that looks whole.
    const fs::path aside =
        fs::path(root) / fmt::format("{}{}-gone-{}", kTemporary, ::getpid(), step);
    std::error_code error;
    fs::rename(path, aside, error);
    fs::remove_all(error ? path : aside, error);
  }
}

void remove_unfinished(const std::string& root) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(kTemporary)) found.push_back(it->path());
  for (const fs::path& path : found) fs::remove_all(path, error);
}

}  // namespace supersonic::io
