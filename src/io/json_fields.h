// Typed, range-checked access to the fields of a JSON object that came from a file. For .cpp files
// (includes nlohmann). A field that is absent or null has its default; a field of the wrong type or
// range is Error(bad_file) naming the file.
#pragma once
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"

namespace supersonic::io {

class JsonFields {
 public:
  // prefix: where the object stands in the file ("rope_scaling."), for messages.
  JsonFields(const nlohmann::json& object, std::string file, std::string prefix = "")
      : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {
    CHECK_FILE(object_.is_object(), "{}: {} must be a JSON object", file_,
               prefix_.empty() ? "the content" : prefix_.substr(0, prefix_.size() - 1));
  }

  bool has(const char* key) const { return find(key) != nullptr; }
  const nlohmann::json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  [[noreturn]] void bad(const char* key, std::string_view expected) const {
    const auto* value = find(key);
    fail(ErrorKind::bad_file, "{}: {}{} is {}, {} was expected", file_, prefix_, key,
         value ? shown(*value) : "missing", expected);
  }

  std::optional<std::int64_t> integer(const char* key, std::int64_t low, std::int64_t high) const {
    const auto* value = find(key);
    if (!value) return std::nullopt;
    const auto n = to_integer(*value);
    if (!n || *n < low || *n > high) bad(key, fmt::format("an integer from {} to {}", low, high));
    return n;
  }
  std::int64_t require_integer(const char* key, std::int64_t low, std::int64_t high) const {
    const auto n = integer(key, low, high);
    if (!n) bad(key, fmt::format("an integer from {} to {}", low, high));
    return *n;
  }
  std::optional<double> real(const char* key, double low, double high) const {
    const auto* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high))
      bad(key, fmt::format("a number from {} to {}", low, high));
    return value->get<double>();
  }
  std::optional<bool> boolean(const char* key) const {
    const auto* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_boolean()) bad(key, "true or false");
    return value->get<bool>();
  }
  std::optional<std::string> string(const char* key) const {
    const auto* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_string()) bad(key, "a string");
    return value->get<std::string>();
  }
  // One integer or a list of them; empty when absent.
  std::vector<std::int64_t> integers(const char* key, std::int64_t low, std::int64_t high) const {
    std::vector<std::int64_t> result;
    const auto* value = find(key);
    if (!value) return result;
    const auto add = [&](const nlohmann::json& item) {
      const auto n = to_integer(item);
      if (!n || *n < low || *n > high) bad(key, fmt::format("integers from {} to {}", low, high));
      result.push_back(*n);
    };
    if (value->is_array())
      for (const auto& item : *value) add(item);
    else
      add(*value);
    return result;
  }
  JsonFields object(const char* key) const { return {object_.at(key), file_, prefix_ + key + "."}; }
  const nlohmann::json& value() const { return object_; }
  const std::string& file() const { return file_; }

  // Integers, and floats without a fraction (some tools write 2048.0).
  static std::optional<std::int64_t> to_integer(const nlohmann::json& value) {
    if (value.is_number_unsigned()) {
      const auto u = value.get<std::uint64_t>();
      if (u > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<std::int64_t>(u);
    }
    if (value.is_number_integer()) return value.get<std::int64_t>();
    if (value.is_number_float()) {
      const double d = value.get<double>();
      if (d == std::floor(d) && std::abs(d) < 9e15) return static_cast<std::int64_t>(d);
    }
    return std::nullopt;
  }

 private:
  static std::string shown(const nlohmann::json& value) {
    if (value.is_structured()) return value.is_array() ? "a list" : "an object";
    std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 60) + "…" : text;
  }

  const nlohmann::json& object_;
  std::string file_, prefix_;
};

}  // namespace supersonic::io
