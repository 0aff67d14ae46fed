// safetensors: a file, or a folder with one file or with an index over several, read in place.
// The reference implementation's rules hold: header at most 100 MB and starting with '{', tensors
// contiguous from byte 0 without holes or overlaps, sizes equal to shape times dtype, the file
// exactly as long as the header says. A dtype this engine does not know, or a rank above 6, is an
// error only when that tensor is asked for.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"
#include "io/mapped_file.h"
#include "io/output_file.h"

namespace supersonic::io {

struct SafeTensor {
  std::string name;
  DType dtype{};  // meaningful when readable
  Shape shape;
  bool readable = true;             // false: get() says why
  std::string dtype_name;           // as the file has it: "BF16"
  std::span<const std::byte> data;  // row-major, contiguous
  std::uint32_t file = 0;           // index into files()
};

class SafeTensors {
 public:
  // path: a .safetensors file, an .index.json, or a folder that holds model.safetensors or
  // model.safetensors.index.json. Throws Error(bad_file).
  static SafeTensors open(const std::string& path);
  // One file's bytes, which the caller keeps alive; name is for messages.
  static SafeTensors parse(std::span<const std::byte> bytes, std::string name);

  const std::string& path() const { return path_; }
  std::span<const std::string> files() const { return files_; }
  std::span<const SafeTensor> tensors() const { return tensors_; }  // by file, then by offset
  const SafeTensor* find(std::string_view name) const;              // null when absent
  const SafeTensor& get(
      std::string_view name) const;  // Error(bad_file) when absent or not readable
  // __metadata__, of all files.
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }

 private:
  void add_file(std::span<const std::byte> bytes, const std::string& name);
  void build_index();

  std::string path_;
  std::vector<MappedFile> maps_;
  std::vector<std::string> files_;
  std::vector<SafeTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<std::uint32_t> order_;  // sorted by name
};

std::string_view safetensors_name(DType dtype);  // "BF16"

// Writes one file or several with an index. Declare every tensor, then append the data in that
// order. Files appear under their final names only in finish(): shards first, the index last, so
// that a reader never sees an incomplete set.
class SafeTensorsWriter {
 public:
  // stem: "DIR/model" gives DIR/model.safetensors, or DIR/model-00001-of-0000N.safetensors with
  // DIR/model.safetensors.index.json when the tensors exceed max_shard_bytes.
  explicit SafeTensorsWriter(std::string stem,
                             std::uint64_t max_shard_bytes = std::uint64_t{5} << 30);
  void declare(std::string_view name, const Shape& shape, DType dtype);
  void append(std::string_view name, std::span<const std::byte> data);
  void finish();

 private:
  struct Declared {
    std::string name;
    Shape shape;
    DType dtype;
    std::uint64_t bytes;
    std::size_t shard;
  };
  std::string shard_path(std::size_t shard) const;
  void open_shard(std::size_t shard);

  std::string stem_;
  std::uint64_t max_shard_bytes_, shard_bytes_ = 0, total_bytes_ = 0;
  std::size_t shards_ = 1;
  std::vector<Declared> tensors_;
  std::unordered_set<std::string> names_;
  std::vector<OutputFile> files_;  // opened in order, committed together
  std::size_t current_ = 0;
  std::uint64_t written_ = 0;
};

}  // namespace supersonic::io
