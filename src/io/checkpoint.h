// Checkpoints that are whole or absent. A checkpoint is a folder ROOT/step-000123 with the caller's
// files and a manifest.json that lists each file's size and XXH3-128 hash. It is written as
// ROOT/.tmp-…, flushed to the disk, and renamed; a process killed at any moment leaves either the
// old state or the new one. Reading takes the newest checkpoint whose every file has the size and
// hash that its manifest says.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::io {

class CheckpointWriter {
 public:
  // Creates the temporary folder. config: JSON text kept in the manifest.
  CheckpointWriter(std::string root, std::int64_t step, std::string_view config_json = "{}");
  ~CheckpointWriter();  // without commit(): removes the temporary folder
  CheckpointWriter(const CheckpointWriter&) = delete;

  // Files are written one after another: begin, append as often as needed. name: a plain file name.
  void begin(std::string_view name, std::uint64_t expected_bytes = 0);
  void append(std::span<const std::byte> bytes);
  void write(std::string_view name, std::span<const std::byte> bytes);  // begin and append in one
  // For writers that make their own files (safetensors, an adapter): they write into staging(),
  // then adopt() hashes the file and lists it in the manifest.
  const std::string& staging() const;
  void adopt(std::string_view name);
  void commit();  // the checkpoint is on the disk under its final name when this returns

  std::string path() const;  // the final name

 private:
  struct State;
  void end_file();
  template <class F>
  void named(F&& f);  // errors name the checkpoint, not its temporary folder
  std::unique_ptr<State> state_;
};

struct CheckpointFile {
  std::string name, hash;  // hash: 32 hexadecimal digits
  std::uint64_t bytes = 0;
};

struct Checkpoint {
  std::string path;
  std::int64_t step = 0;
  std::string config_json;
  std::vector<CheckpointFile> files;
  std::string file(std::string_view name)
      const;  // its path; Error(bad_file) when the checkpoint has no such file
};

struct CheckpointSearch {
  std::optional<Checkpoint> newest;  // empty: there is none that is valid
  std::vector<std::string>
      warnings;  // one for each newer checkpoint that was skipped, with the reason
};

CheckpointSearch newest_checkpoint(const std::string& root);
Checkpoint open_checkpoint(const std::string& path);  // verified; throws Error(bad_file)
// Removes all but the newest `count` checkpoints (count >= 1) up to step `last`. Those of later
// steps belong to a run that was given up (training went on from an older checkpoint, or anew), and
// go too.
void keep_newest(const std::string& root, std::size_t count, std::int64_t last);
// Removes what killed processes left. The caller knows that nobody else writes there (FolderLock).
void remove_unfinished(const std::string& root);

}  // namespace supersonic::io
