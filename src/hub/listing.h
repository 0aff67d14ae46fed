// The files of a repository as the hub lists them, and the choice among them: which files make up a
// model that this engine can read. The same choice is made from the hub's list and from what lies
// in the cache.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::hub {

struct RepoFile {
  std::string path;
  std::uint64_t size = 0;
  // The name of its blob in the cache and its hash: SHA-256 of large files (LFS), else git's SHA-1.
  std::string etag;
  bool large() const { return etag.size() == 64; }
};

// One page of the answer to /api/models/…/tree. `source` is for messages. Throws Error(bad_file) on
// a path that may not become one here, a size or hash that is none, or too many files.
std::vector<RepoFile> parse_tree(std::string_view text, const std::string& source);
// Throws Error(bad_file) where a path is listed twice, or as a file and as a folder.
void check_tree(std::vector<RepoFile>& files, const std::string& source);

// A GGUF model: one file, or a split set in the order of its parts.
struct GgufModel {
  std::string type;  // "Q4_K_M", "UD-Q2_K_XL", "BF16"; by its name; "" when that has none
  std::string stem;  // path without -00001-of-00003.gguf or .gguf
  std::vector<RepoFile> files;
  int parts = 1;  // that there should be
  std::uint64_t bytes() const;
  bool complete() const { return static_cast<int>(files.size()) == parts; }
};
std::vector<GgufModel> gguf_models(const std::vector<RepoFile>& files);
std::string gguf_type(std::string_view path);  // the last type in a file's name, upper case

struct Selection {
  enum class Kind { folder, adapter, gguf, file };  // config and safetensors; PEFT; GGUF; one file
  Kind kind = Kind::folder;
  std::vector<RepoFile> files;
  std::string main;                 // gguf, file: the path to open; folder: ""
  std::string what;                 // "safetensors in 3 files", "Q4_K_M"
  std::vector<std::string> others;  // what else could be chosen with NAME:…
  bool chosen_here = false;         // among several, without a word of the user's
  bool complete = true;             // a split set has all its parts
  std::uint64_t bytes() const;
};

// `choice` is what stands after ':' (see ModelName), `name` is for messages. Throws Error(usage)
// where nothing or more than one thing is meant, with what there is; Error(bad_file) where the
// repository has no weights in a format that can be read.
Selection select_files(const std::vector<RepoFile>& files, const std::string& choice,
                       const std::string& name);

}  // namespace supersonic::hub
