// An output, file or folder, that is made beside its place and takes its name only when it is
// complete and checked. It is made inside a hidden folder next to the final path (same file system,
// so that taking the name is one rename); destroyed without commit(), everything is removed.
#pragma once
#include <span>
#include <string>

#include "core/error.h"

namespace supersonic::io {

class StagedOutput {
 public:
  enum class Kind { file, folder };
  // Throws Error(usage) where `path` exists and `replace` is false; where it holds one of `inputs`;
  // and, replacing a folder, where that folder is none of a model or adapter (it lacks config.json
  // and adapter_config.json). Missing parent folders are made.
  StagedOutput(std::string path, Kind kind, bool replace, std::span<const std::string> inputs);
  ~StagedOutput();
  StagedOutput(const StagedOutput&) = delete;

  const std::string& path() const { return path_; }  // the final one
  const std::string& staged() const {
    return staged_;
  }  // write here; of a folder: it exists and is empty
  void commit();
  // Instead of the one file: several that were made beside staged(), the first the one by which the
  // others are found, so that it comes last. Throws Error(usage) where a file has one of their
  // names and nothing is to be replaced.
  void commit_files(std::span<const std::string> staged_files);
  std::string final_path(const std::string& staged_file) const;
  // The same error with the final path where the message has the staged one.
  Error renamed(const Error& error) const;

 private:
  std::string path_, hidden_, staged_;
  Kind kind_;
  bool replace_;
};

}  // namespace supersonic::io
