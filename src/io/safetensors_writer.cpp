// Writing safetensors: all headers are known before the first byte of data, so tensors stream
// straight to their shard.
#include <algorithm>

#include "core/error.h"
#include "io/checked.h"
#include "io/json_tree.h"
#include "io/safetensors.h"

namespace supersonic::io {

namespace {

constexpr std::size_t kHeaderUnit = 8;

}  // namespace

SafeTensorsWriter::SafeTensorsWriter(std::string stem, std::uint64_t max_shard_bytes)
    : stem_(std::move(stem)), max_shard_bytes_(max_shard_bytes) {
  CHECK(max_shard_bytes_ > 0, "{}: a shard size of 0", stem_);
}

void SafeTensorsWriter::declare(std::string_view name, const Shape& shape, DType dtype) {
  CHECK(files_.empty(), "{}: tensor {} declared after tensor data", stem_, name);
  CHECK(name != "__metadata__" && names_.emplace(name).second, "{}: tensor {} declared twice",
        stem_, name);
  (void)safetensors_name(dtype);  // refuses what the format cannot hold
  std::uint64_t bytes = size_of(dtype);
  for (int i = 0; i < shape.rank; ++i) {
    const auto product = checked_mul(bytes, static_cast<std::uint64_t>(shape.dims[i]));
    CHECK(shape.dims[i] >= 0 && product, "{}: tensor {}: shape {} is too large", stem_, name,
          to_string(shape));
    bytes = *product;
  }
  const auto sum = checked_add(shard_bytes_, bytes), total = checked_add(total_bytes_, bytes);
  CHECK(sum && total, "{}: tensor {}: the file would be larger than 2^64 bytes", stem_, name);
  if (shard_bytes_ > 0 && *sum > max_shard_bytes_) {
    ++shards_;
    shard_bytes_ = 0;
  }
  shard_bytes_ += bytes;
  total_bytes_ = *total;
  tensors_.push_back({std::string(name), shape, dtype, bytes, shards_ - 1});
}

std::string SafeTensorsWriter::shard_path(std::size_t shard) const {
  if (shards_ == 1) return stem_ + ".safetensors";
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem_, shard + 1, shards_);
}

void SafeTensorsWriter::open_shard(std::size_t shard) {
  JsonTree header = JsonTree::object({{"__metadata__", JsonTree::object({{"format", "pt"}})}});
  std::uint64_t offset = 0;
  for (const auto& t : tensors_) {
    if (t.shard != shard) continue;
    const std::vector<std::int64_t> dims(t.shape.dims.begin(), t.shape.dims.begin() + t.shape.rank);
    header.set(t.name,
               JsonTree::object({{"dtype", safetensors_name(t.dtype)},
                                 {"shape", JsonTree::array(dims)},
                                 {"data_offsets", JsonTree::array({offset, offset + t.bytes})}}));
    offset += t.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + kHeaderUnit - 1) / kHeaderUnit * kHeaderUnit, ' ');
  const std::uint64_t length = text.size();
  files_.emplace_back(shard_path(shard), 8 + length + offset);
  files_.back().write(std::as_bytes(std::span(&length, 1)));
  files_.back().write(text);
}

void SafeTensorsWriter::append(std::string_view name, std::span<const std::byte> data) {
  if (files_.empty()) open_shard(0);
  while (current_ < tensors_.size() && tensors_[current_].bytes == 0 &&
         tensors_[current_].name != name)
    ++current_;
  CHECK(current_ < tensors_.size(), "{}: data for tensor {}, but all declared tensors are complete",
        stem_, name);
  const auto& t = tensors_[current_];
  CHECK(t.name == name, "{}: data for tensor {}, {} is next", stem_, name, t.name);
  CHECK(data.size() <= t.bytes - written_, "{}: tensor {}: more data than its {} bytes", stem_,
        name, t.bytes);
  while (files_.size() <= t.shard) open_shard(files_.size());
  files_.back().write(data);
  written_ += data.size();
  if (written_ < t.bytes) return;
  ++current_;
  written_ = 0;
}

void SafeTensorsWriter::finish() {
  while (current_ < tensors_.size() && tensors_[current_].bytes == 0) ++current_;
  CHECK(current_ == tensors_.size(), "{}: tensor {} has {} of {} bytes", stem_,
        tensors_[current_].name, written_, tensors_[current_].bytes);
  while (files_.size() < shards_) open_shard(files_.size());
  for (auto& file : files_) file.commit();
  if (shards_ == 1) return;
  JsonTree weight_map;
  for (const auto& t : tensors_) {
    const std::string path = shard_path(t.shard);
    weight_map.set(t.name, path.substr(path.find_last_of('/') + 1));
  }
  const JsonTree index = JsonTree::object(
      {{"metadata", JsonTree::object({{"total_size", total_bytes_}})}, {"weight_map", weight_map}});
  write_file(stem_ + ".safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace supersonic::io
