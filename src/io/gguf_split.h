// The names of a split model's parts: PREFIX-00001-of-00003.gguf, as llama.cpp's gguf-split writes
// them. Each part is a GGUF file of its own and says in its metadata which it is (split.no, from 0,
// split.count, split.tensors.count); the first has the model's metadata as well.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace supersonic::io {

constexpr std::uint32_t kMaxParts = 65535;  // split.count has 16 bits; names show five digits

struct SplitName {
  std::string prefix;               // with the folder
  std::uint32_t no = 0, count = 1;  // no from 0, in a name from 1
};
// no from 0.
std::string split_name(std::string_view prefix, std::uint32_t no, std::uint32_t count);
// Nothing for any other name.
std::optional<SplitName> parse_split_name(std::string_view path);

}  // namespace supersonic::io
