// Typed, range-checked access to the fields of a JSON object that came from a file. A field that is
// absent or null has its default; a field of the wrong type or range is Error(bad_file) naming the
// file.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace supersonic::io {

class JsonFields {
 public:
  // prefix: where the object stands in the file ("rope_scaling."), for messages.
  JsonFields(JsonView object, std::string file, std::string prefix = "");

  bool has(const char* key) const { return static_cast<bool>(find(key)); }
  JsonView find(const char* key) const;  // none where it is null, too
  [[noreturn]] void bad(const char* key, std::string_view expected) const;

  std::optional<std::int64_t> integer(const char* key, std::int64_t low, std::int64_t high) const;
  std::int64_t require_integer(const char* key, std::int64_t low, std::int64_t high) const;
  std::optional<double> real(const char* key, double low, double high) const;
  std::optional<bool> boolean(const char* key) const;
  std::optional<std::string> string(const char* key) const;
  // One integer or a list of them; empty when absent.
  std::vector<std::int64_t> integers(const char* key, std::int64_t low, std::int64_t high) const;
  JsonFields object(const char* key) const {
    return {object_.find(key), file_, prefix_ + key + "."};
  }
  JsonView value() const { return object_; }
  const std::string& file() const { return file_; }

 private:
  JsonView object_;
  std::string file_, prefix_;
};

}  // namespace supersonic::io
