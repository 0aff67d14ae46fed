// GGUF output: the header is encoded in memory as it is declared, so that its size and every offset
// are known before the first byte is written.
#include "io/gguf_writer.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "io/checked.h"

static_assert(std::endian::native == std::endian::little,
              "GGUF is written in host order, which must be little-endian");

namespace supersonic::io {

namespace {

constexpr std::uint64_t kAlignment = 32;
constexpr std::size_t kMaxName = 63;  // ggml keeps names in 64 bytes with a terminating zero
constexpr int kMaxDims = 4;

template <class T>
std::span<const std::byte> bytes_of_value(const T& v) {
  return std::as_bytes(std::span(&v, 1));
}

void put(std::string& out, std::span<const std::byte> bytes) {
  out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

template <class T>
void put_number(std::string& out, T v) {
  put(out, bytes_of_value(v));
}

void put_string(std::string& out, std::string_view v) {
  put_number(out, std::uint64_t{v.size()});
  out.append(v);
}

}  // namespace

GgufWriter::GgufWriter(std::string path) : path_(std::move(path)) {}

void GgufWriter::begin_value(std::string_view key, GgufType type) {
  CHECK(!file_, "{}: metadata \"{}\" set after tensor data", path_, key);
  CHECK(!key.empty() && key.size() <= 65535, "{}: a metadata key of {} bytes", path_, key.size());
  CHECK(key != "general.alignment", "{}: general.alignment is fixed at {}", path_, kAlignment);
  CHECK(keys_.emplace(key).second, "{}: metadata \"{}\" set twice", path_, key);
  put_string(values_, key);
  put_number(values_, static_cast<std::uint32_t>(type));
  ++n_values_;
}

void GgufWriter::set_raw(std::string_view key, GgufType type, std::span<const std::byte> item) {
  CHECK(size_of(type) == item.size() && !item.empty(), "{}: metadata \"{}\": {} bytes for a {}",
        path_, key, item.size(), name_of(type));
  begin_value(key, type);
  put(values_, item);
}

void GgufWriter::set_raw_array(std::string_view key, GgufType item, std::uint64_t count,
                               std::span<const std::byte> items) {
  CHECK(item == GgufType::string || count * size_of(item) == items.size(),
        "{}: metadata \"{}\": {} bytes for {} items of {}", path_, key, items.size(), count,
        name_of(item));
  begin_value(key, GgufType::array);
  put_number(values_, static_cast<std::uint32_t>(item));
  put_number(values_, count);
  put(values_, items);
}

void GgufWriter::set_u8(std::string_view key, std::uint8_t v) {
  set_raw(key, GgufType::u8, bytes_of_value(v));
}
void GgufWriter::set_i8(std::string_view key, std::int8_t v) {
  set_raw(key, GgufType::i8, bytes_of_value(v));
}
void GgufWriter::set_u16(std::string_view key, std::uint16_t v) {
  set_raw(key, GgufType::u16, bytes_of_value(v));
}
void GgufWriter::set_i16(std::string_view key, std::int16_t v) {
  set_raw(key, GgufType::i16, bytes_of_value(v));
}
void GgufWriter::set_u32(std::string_view key, std::uint32_t v) {
  set_raw(key, GgufType::u32, bytes_of_value(v));
}
void GgufWriter::set_i32(std::string_view key, std::int32_t v) {
  set_raw(key, GgufType::i32, bytes_of_value(v));
}
void GgufWriter::set_u64(std::string_view key, std::uint64_t v) {
  set_raw(key, GgufType::u64, bytes_of_value(v));
}
void GgufWriter::set_i64(std::string_view key, std::int64_t v) {
  set_raw(key, GgufType::i64, bytes_of_value(v));
}
void GgufWriter::set_f32(std::string_view key, float v) {
  set_raw(key, GgufType::f32, bytes_of_value(v));
}
void GgufWriter::set_f64(std::string_view key, double v) {
  set_raw(key, GgufType::f64, bytes_of_value(v));
}
void GgufWriter::set_bool(std::string_view key, bool v) {
  set_raw(key, GgufType::boolean, bytes_of_value(static_cast<std::uint8_t>(v)));
}
void GgufWriter::set_string(std::string_view key, std::string_view v) {
  begin_value(key, GgufType::string);
  put_string(values_, v);
}
void GgufWriter::set_strings(std::string_view key, std::span<const std::string> v) {
  std::string items;
  for (const auto& s : v) put_string(items, s);
  set_raw_array(key, GgufType::string, v.size(), std::as_bytes(std::span(items)));
}
void GgufWriter::set_i32s(std::string_view key, std::span<const std::int32_t> v) {
  set_raw_array(key, GgufType::i32, v.size(), std::as_bytes(v));
}
void GgufWriter::set_u32s(std::string_view key, std::span<const std::uint32_t> v) {
  set_raw_array(key, GgufType::u32, v.size(), std::as_bytes(v));
}
void GgufWriter::set_f32s(std::string_view key, std::span<const float> v) {
  set_raw_array(key, GgufType::f32, v.size(), std::as_bytes(v));
}

void GgufWriter::copy(const GgufValue& value) {
  if (value.type == GgufType::array)
    return set_raw_array(value.key, value.item, value.count, value.payload);
  if (value.type == GgufType::string)
    return set_string(value.key,
                      {reinterpret_cast<const char*>(value.payload.data()), value.payload.size()});
  set_raw(value.key, value.type, value.payload);
}

void GgufWriter::declare(std::string_view name, const Shape& shape, DType dtype) {
  declare(name, shape, static_cast<std::uint32_t>(ggml_of_scalar(dtype)),
          tensor_bytes(shape, dtype, nullptr));
}

void GgufWriter::declare(std::string_view name, const Shape& shape, const Format& format) {
  CHECK(format.ggml_type >= 0, "{}: {} is not a GGUF format; convert to q8_0, q6_k or q4_k", path_,
        format.name);
  const auto bytes = tensor_bytes(shape, DType::quant, &format);
  CHECK(bytes, "{}: tensor {}: rows of {} values are not whole {} blocks of {}", path_, name,
        shape.rank ? shape[-1] : 1, format.name, format.block);
  declare(name, shape, static_cast<std::uint32_t>(format.ggml_type), bytes);
}

void GgufWriter::declare(std::string_view name, const Shape& shape, std::uint32_t type,
                         std::optional<std::uint64_t> bytes) {
  CHECK(!file_, "{}: tensor {} declared after tensor data", path_, name);
  CHECK(!name.empty() && name.size() <= kMaxName,
        "{}: the tensor name \"{}\" has {} bytes, 1 to {} are allowed", path_, name, name.size(),
        kMaxName);
  CHECK(shape.rank <= kMaxDims, "{}: tensor {}: {} dimensions, GGUF holds up to {}", path_, name,
        shape.rank, kMaxDims);
  CHECK(bytes && *bytes > 0, "{}: tensor {}: shape {} is empty or too large", path_, name,
        to_string(shape));
  CHECK(names_.emplace(name).second, "{}: tensor {} declared twice", path_, name);
  Declared t{std::string(name), {}, type, *bytes, data_bytes_};
  for (int i = shape.rank - 1; i >= 0; --i)
    t.dims.push_back(static_cast<std::uint64_t>(shape.dims[i]));
  const auto end = checked_add(data_bytes_, *bytes);
  const auto aligned = end ? checked_align(*end, kAlignment) : end;
  CHECK(aligned, "{}: tensor {}: the file would be larger than 2^64 bytes", path_, name);
  data_bytes_ = *aligned;
  tensors_.push_back(std::move(t));
}

void GgufWriter::write_header() {
  std::string header = "GGUF";
  put_number(header, std::uint32_t{3});
  put_number(header, std::uint64_t{tensors_.size()});
  put_number(header, n_values_);
  header += values_;
  for (const auto& t : tensors_) {
    put_string(header, t.name);
    put_number(header, static_cast<std::uint32_t>(t.dims.size()));
    for (const auto d : t.dims) put_number(header, d);
    put_number(header, t.type);
    put_number(header, t.offset);
  }
  file_ = std::make_unique<OutputFile>(path_, header.size() + kAlignment + data_bytes_);
  file_->write(header);
  file_->pad_to(kAlignment);
}

std::uint64_t GgufWriter::bytes_of(std::string_view name) const {
  for (const auto& t : tensors_)
    if (t.name == name) return t.bytes;
  fail(ErrorKind::failure, "{}: tensor {} was not declared", path_, name);
}

void GgufWriter::append(std::string_view name, std::span<const std::byte> data) {
  if (!file_) write_header();
  CHECK(current_ < tensors_.size(), "{}: data for tensor {}, but all declared tensors are complete",
        path_, name);
  const auto& t = tensors_[current_];
  CHECK(t.name == name, "{}: data for tensor {}, {} is next", path_, name, t.name);
  CHECK(data.size() <= t.bytes - written_, "{}: tensor {}: {} bytes more than its {}", path_, name,
        data.size() - (t.bytes - written_), t.bytes);
  file_->write(data);
  written_ += data.size();
  if (written_ < t.bytes) return;
  file_->pad_to(kAlignment);
  ++current_;
  written_ = 0;
}

void GgufWriter::finish() {
  if (!file_) write_header();
  CHECK(current_ == tensors_.size(), "{}: tensor {} has {} of {} bytes", path_,
        tensors_[current_].name, written_, tensors_[current_].bytes);
  file_->commit();
}

}  // namespace supersonic::io
