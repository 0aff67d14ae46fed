// Opening a GGUF file, and with any part of a split model all parts, joined: the metadata is the
// first part's, the tensors are everyone's. What a part says of itself is checked against its name
// and against the others before anything is believed.
#include "io/gguf_split.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/error.h"
#include "io/gguf.h"

namespace supersonic::io {
namespace {

constexpr std::string_view kEnding = ".gguf", kOf = "-of-";
constexpr std::size_t kDigits = 5;

std::optional<std::uint32_t> number_of(std::string_view digits) {
  std::uint32_t n = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    n = 10 * n + static_cast<std::uint32_t>(c - '0');
  }
  return n;
}

std::uint32_t count_of(const GgufFile& file) { return file.get_u32("split.count", 1); }

void check_part(const GgufFile& part, std::uint32_t no, std::uint32_t count) {
  const std::uint32_t says = part.get_u32("split.no", 0);
  CHECK_FILE(
      count_of(part) == count && says == no,
      "{}: split.no is {} and split.count {}, where {} and {} were expected; the parts are of "
      "different models or were renamed, fetch them again",
      part.path(), says, count_of(part), no, count);
}

}  // namespace

std::string split_name(std::string_view prefix, std::uint32_t no, std::uint32_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, no + 1, count);
}

std::optional<SplitName> parse_split_name(std::string_view path) {
  constexpr std::size_t kTail = 1 + kDigits + kOf.size() + kDigits + kEnding.size();
  if (path.size() < kTail || !path.ends_with(kEnding)) return std::nullopt;
  const std::string_view tail = path.substr(path.size() - kTail);
  const auto no = number_of(tail.substr(1, kDigits));
  const auto count = number_of(tail.substr(1 + kDigits + kOf.size(), kDigits));
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf || !no || !count) return {};
  if (*no < 1 || *no > *count || *count > kMaxParts) return std::nullopt;
  return SplitName{std::string(path.substr(0, path.size() - kTail)), *no - 1, *count};
}

GgufFile GgufFile::open_part(const std::string& path) {
  MappedFile file = MappedFile::open(path);
  GgufFile result = parse(file.bytes(), path);
  result.files_.push_back(std::move(file));
  return result;
}

GgufFile GgufFile::open(const std::string& path) {
  GgufFile given = open_part(path);
  const std::uint32_t count = count_of(given);
  if (count <= 1) return given;
  const auto name = parse_split_name(path);
  CHECK_FILE(name && name->count == count,
             "{}: is part {} of a model in {} files, but its name does not end in {}; give the "
             "parts the names that they were made with",
             path, given.get_u32("split.no", 0) + std::uint64_t{1}, count,
             split_name("", 0, std::min(count, kMaxParts)));
  std::vector<GgufFile> parts;
  for (std::uint32_t no = 0; no < count; ++no) {
    const std::string part_path = split_name(name->prefix, no, count);
    CHECK_FILE(no == name->no || std::filesystem::exists(part_path),
               "{}: is missing: {} is one of {} parts, which must lie in one folder; fetch it",
               part_path, std::filesystem::path(path).filename().string(), count);
    parts.push_back(no == name->no ? std::move(given) : open_part(part_path));
  }
  return join(std::move(parts));
}

GgufFile GgufFile::join(std::vector<GgufFile> parts) {
  const auto count = static_cast<std::uint32_t>(parts.size());
  for (std::uint32_t no = 0; no < count; ++no) check_part(parts[no], no, count);
  GgufFile joined = std::move(parts.at(0));
  for (std::uint32_t no = 1; no < count; ++no) {
    for (MappedFile& file : parts[no].files_) joined.files_.push_back(std::move(file));
    joined.tensors_.insert(joined.tensors_.end(), parts[no].tensors_.begin(),
                           parts[no].tensors_.end());
  }
  const std::uint32_t tensors = joined.get_u32("split.tensors.count");
  CHECK_FILE(tensors == joined.tensors_.size(),
             "{}: split.tensors.count is {}, but the {} parts hold {} tensors; fetch them again",
             joined.path(), tensors, count, joined.tensors_.size());
  joined.sort_tensors();
  return joined;
}

void GgufFile::sort_tensors() {
  tensor_order_.resize(tensors_.size());
  std::iota(tensor_order_.begin(), tensor_order_.end(), 0u);
  const auto name = [&](std::uint32_t i) { return tensors_[i].name; };
  std::sort(tensor_order_.begin(), tensor_order_.end(),
            [&](auto a, auto b) { return name(a) < name(b); });
  for (std::size_t i = 1; i < tensor_order_.size(); ++i)
    CHECK_FILE(name(tensor_order_[i - 1]) != name(tensor_order_[i]),
               "{}: the tensor \"{}\" stands in two parts", path(), name(tensor_order_[i]));
}

}  // namespace supersonic::io
