// The JSON header of a safetensors file, read as a stream: no tree is built, so that memory stays
// proportional to the number of tensors whatever a hostile header contains.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace supersonic::io {

struct SafeTensorEntry {
  std::string name, dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes, relative to the data section
};

struct SafeTensorsHeader {
  std::vector<SafeTensorEntry> tensors;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// file is for messages. Throws Error(bad_file); offsets are not yet checked against each other.
SafeTensorsHeader parse_safetensors_header(std::string_view json, const std::string& file);

}  // namespace supersonic::io
