// Each check names the file, the field, what stands there and what was expected.
#include "io/json_fields.h"

#include "core/error.h"

namespace supersonic::io {

JsonFields::JsonFields(JsonView object, std::string file, std::string prefix)
    : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {
  CHECK_FILE(object_.is_object(), "{}: {} must be a JSON object", file_,
             prefix_.empty() ? "the content" : prefix_.substr(0, prefix_.size() - 1));
}

JsonView JsonFields::find(const char* key) const {
  const JsonView value = object_.find(key);
  return value.is_null() ? JsonView() : value;
}

void JsonFields::bad(const char* key, std::string_view expected) const {
  fail(ErrorKind::bad_file, "{}: {}{} is {}, {} was expected", file_, prefix_, key,
       find(key).excerpt(), expected);
}

std::optional<std::int64_t> JsonFields::integer(const char* key, std::int64_t low,
                                                std::int64_t high) const {
  const JsonView value = find(key);
  if (!value) return std::nullopt;
  const auto n = value.integer();
  if (!n || *n < low || *n > high) bad(key, fmt::format("an integer from {} to {}", low, high));
  return n;
}

std::int64_t JsonFields::require_integer(const char* key, std::int64_t low,
                                         std::int64_t high) const {
  const auto n = integer(key, low, high);
  if (!n) bad(key, fmt::format("an integer from {} to {}", low, high));
  return *n;
}

std::optional<double> JsonFields::real(const char* key, double low, double high) const {
  const JsonView value = find(key);
  if (!value) return std::nullopt;
  const auto x = value.number();
  if (!x || !(*x >= low && *x <= high)) bad(key, fmt::format("a number from {} to {}", low, high));
  return x;
}

std::optional<bool> JsonFields::boolean(const char* key) const {
  const JsonView value = find(key);
  if (!value) return std::nullopt;
  const auto flag = value.boolean();
  if (!flag) bad(key, "true or false");
  return flag;
}

std::optional<std::string> JsonFields::string(const char* key) const {
  const JsonView value = find(key);
  if (!value) return std::nullopt;
  auto text = value.text();
  if (!text) bad(key, "a string");
  return text;
}

std::vector<std::int64_t> JsonFields::integers(const char* key, std::int64_t low,
                                               std::int64_t high) const {
  std::vector<std::int64_t> result;
  const JsonView value = find(key);
  if (!value) return result;
  for (const JsonView& item : value.is_array() ? value.items() : std::vector<JsonView>{value}) {
    const auto n = item.integer();
    if (!n || *n < low || *n > high) bad(key, fmt::format("integers from {} to {}", low, high));
    result.push_back(*n);
  }
  return result;
}

}  // namespace supersonic::io
