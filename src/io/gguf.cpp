// Typed access to the metadata of an open GGUF file. Nothing here can run out of range: the parser
// has checked every view; what remains to check is that a value is of the asked kind and fits.
#include "io/gguf.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace supersonic::io {

namespace {

template <class T>
T load(std::span<const std::byte> bytes, std::size_t index = 0) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof value);
  return value;
}

// An integer of any type; nullopt when the type is no integer or the value exceeds int64.
std::optional<std::int64_t> load_integer(GgufType type, std::span<const std::byte> bytes,
                                         std::size_t index = 0) {
  switch (type) {
    case GgufType::u8:
      return load<std::uint8_t>(bytes, index);
    case GgufType::i8:
      return load<std::int8_t>(bytes, index);
    case GgufType::u16:
      return load<std::uint16_t>(bytes, index);
    case GgufType::i16:
      return load<std::int16_t>(bytes, index);
    case GgufType::u32:
      return load<std::uint32_t>(bytes, index);
    case GgufType::i32:
      return load<std::int32_t>(bytes, index);
    case GgufType::i64:
      return load<std::int64_t>(bytes, index);
    case GgufType::u64: {
      const auto v = load<std::uint64_t>(bytes, index);
      if (v > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return std::nullopt;
      return static_cast<std::int64_t>(v);
    }
    default:
      return std::nullopt;
  }
}

template <class T, class Key>
const T* lookup(const std::vector<T>& items, const std::vector<std::uint32_t>& order,
                std::string_view key, Key name) {
  const auto it =
      std::lower_bound(order.begin(), order.end(), key,
                       [&](std::uint32_t i, std::string_view k) { return name(items[i]) < k; });
  return it != order.end() && name(items[*it]) == key ? &items[*it] : nullptr;
}

constexpr std::int64_t kMaxU32 = std::numeric_limits<std::uint32_t>::max();
constexpr std::int64_t kMin64 = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMax64 = std::numeric_limits<std::int64_t>::max();

}  // namespace

const GgufValue* GgufFile::find(std::string_view key) const {
  return lookup(values_, value_order_, key, [](const GgufValue& v) { return v.key; });
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  return lookup(tensors_, tensor_order_, name, [](const GgufTensor& t) { return t.name; });
}

const GgufTensor& GgufFile::tensor(std::string_view name) const {
  const GgufTensor* found = find_tensor(name);
  CHECK_FILE(found,
             "{}: there is no tensor \"{}\"; the file is incomplete, or of another architecture "
             "than it says",
             name_, name);
  return *found;
}

const GgufValue& GgufFile::require(std::string_view key) const {
  const GgufValue* value = find(key);
  CHECK_FILE(value, "{}: the metadata lacks \"{}\"; convert the model again with a current tool",
             name_, key);
  return *value;
}

void GgufFile::wrong_type(const GgufValue& value, std::string_view expected) const {
  std::string actual(name_of(value.type));
  if (value.type == GgufType::array)
    actual = fmt::format("array of {} {}", value.count, name_of(value.item));
  fail(ErrorKind::bad_file, "{}: byte {}: {} is of type {}, {} was expected", name_, value.offset,
       value.key, actual, expected);
}

std::int64_t GgufFile::integer(const GgufValue& value, std::int64_t low, std::int64_t high) const {
  if (value.type == GgufType::u64 && !load_integer(value.type, value.payload))
    fail(ErrorKind::bad_file, "{}: byte {}: {} is too large", name_, value.offset, value.key);
  const auto number = load_integer(value.type, value.payload);
  if (!number) wrong_type(value, "an integer");
  CHECK_FILE(*number >= low && *number <= high, "{}: byte {}: {} is {}, {} to {} was expected",
             name_, value.offset, value.key, *number, low, high);
  return *number;
}

double GgufFile::real(const GgufValue& value) const {
  if (value.type == GgufType::f32) return load<float>(value.payload);
  if (value.type == GgufType::f64) return load<double>(value.payload);
  wrong_type(value, "a float");
}

std::uint32_t GgufFile::get_u32(std::string_view key) const {
  return static_cast<std::uint32_t>(integer(require(key), 0, kMaxU32));
}
std::uint32_t GgufFile::get_u32(std::string_view key, std::uint32_t fallback) const {
  const GgufValue* value = find(key);
  return value ? static_cast<std::uint32_t>(integer(*value, 0, kMaxU32)) : fallback;
}
std::int64_t GgufFile::get_i64(std::string_view key) const {
  return integer(require(key), kMin64, kMax64);
}
std::int64_t GgufFile::get_i64(std::string_view key, std::int64_t fallback) const {
  const GgufValue* value = find(key);
  return value ? integer(*value, kMin64, kMax64) : fallback;
}
double GgufFile::get_float(std::string_view key) const { return real(require(key)); }
double GgufFile::get_float(std::string_view key, double fallback) const {
  const GgufValue* value = find(key);
  return value ? real(*value) : fallback;
}

bool GgufFile::get_bool(std::string_view key, bool fallback) const {
  const GgufValue* value = find(key);
  if (!value) return fallback;
  if (value->type != GgufType::boolean) wrong_type(*value, "a bool");
  return std::to_integer<int>(value->payload[0]) != 0;
}

std::string_view GgufFile::get_string(std::string_view key) const {
  const GgufValue& value = require(key);
  if (value.type != GgufType::string) wrong_type(value, "a string");
  return {reinterpret_cast<const char*>(value.payload.data()), value.payload.size()};
}
std::string_view GgufFile::get_string(std::string_view key, std::string_view fallback) const {
  return find(key) ? get_string(key) : fallback;
}

GgufStrings GgufFile::get_strings(std::string_view key) const {
  const GgufValue& value = require(key);
  if (value.type != GgufType::array || value.item != GgufType::string)
    wrong_type(value, "an array of strings");
  return {value.payload, value.count};
}

std::vector<std::int64_t> GgufFile::get_ints(std::string_view key) const {
  const GgufValue& value = require(key);
  const bool is_integer = value.item != GgufType::string && value.item != GgufType::boolean &&
                          value.item != GgufType::f32 && value.item != GgufType::f64;
  if (value.type != GgufType::array || !is_integer) wrong_type(value, "an array of integers");
  std::vector<std::int64_t> result(value.count);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const auto item = load_integer(value.item, value.payload, i);
    CHECK_FILE(item, "{}: byte {}: {}: item {} is too large", name_, value.offset, key, i);
    result[i] = *item;
  }
  return result;
}

std::vector<float> GgufFile::get_floats(std::string_view key) const {
  const GgufValue& value = require(key);
  if (value.type != GgufType::array || (value.item != GgufType::f32 && value.item != GgufType::f64))
    wrong_type(value, "an array of floats");
  std::vector<float> result(value.count);
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = value.item == GgufType::f32 ? load<float>(value.payload, i)
                                            : static_cast<float>(load<double>(value.payload, i));
  return result;
}

std::vector<std::int64_t> GgufFile::get_per_layer(std::string_view key, std::size_t count) const {
  const GgufValue& value = require(key);
  if (value.type != GgufType::array)
    return std::vector<std::int64_t>(count, integer(value, kMin64, kMax64));
  auto items = get_ints(key);
  CHECK_FILE(items.size() == count,
             "{}: byte {}: {} has {} items, one for each of {} layers was expected", name_,
             value.offset, key, items.size(), count);
  return items;
}

}  // namespace supersonic::io
