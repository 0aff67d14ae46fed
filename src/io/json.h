// JSON from outside: nlohmann's parser behind limits. Size, depth and duplicate keys are checked
// while parsing, so a hostile document can neither exhaust the stack nor mean two things. Errors
// say file, line and column. A document owns the values, a view looks at one of them; both keep
// nlohmann's templates out of the files that read JSON (they take seconds to compile).
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace supersonic::io {

struct JsonLimits {
  std::size_t max_bytes = std::size_t{64} << 20;
  int max_depth = 64;
  std::size_t max_values = std::size_t{4} << 20;  // every scalar, key, object and array counts one
};

// One value of a document that outlives the view, or none: what an absent key has. None is of no
// type, holds nothing, and has no text and no number.
class JsonView {
 public:
  JsonView() = default;
  JsonView(const nlohmann::json& value) : value_(&value) {}
  explicit operator bool() const { return value_ != nullptr; }

  bool is_null() const;
  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_number() const;
  bool is_integer() const;  // a number that is written without fraction and exponent
  std::optional<bool> boolean() const;
  std::optional<std::string> text() const;
  std::optional<double> number() const;
  // Integers, and floats without a fraction (some tools write 2048.0), that fit.
  std::optional<std::int64_t> integer() const;

  std::size_t size() const;  // of a list or an object; 0 of anything else
  bool contains(std::string_view key) const { return static_cast<bool>(find(key)); }
  JsonView find(std::string_view key) const;  // none where this is no object, too
  std::vector<JsonView> items() const;        // of a list
  std::vector<std::pair<std::string, JsonView>> members() const;  // of an object, sorted by key
  std::string dump() const;     // on one line; throws where a text is not UTF-8
  std::string excerpt() const;  // for messages: at most 60 bytes of ASCII; no content of lists

 private:
  friend class JsonTree;
  const nlohmann::json* value_ = nullptr;
};

class JsonDocument {
 public:
  // file is for messages only. Throws Error(bad_file).
  JsonDocument(std::string_view text, const std::string& file, const JsonLimits& limits = {});
  static JsonDocument read(const std::string& path, const JsonLimits& limits = {});
  // Without limits, for a text whose size the caller has bounded; its root is none where the text
  // is not JSON.
  static JsonDocument attempt(std::string_view text);
  JsonDocument(JsonDocument&&) noexcept;
  JsonDocument& operator=(JsonDocument&&) noexcept;
  ~JsonDocument();

  JsonView root() const { return root_ ? JsonView(*root_) : JsonView(); }
  operator JsonView() const { return root(); }

 private:
  JsonDocument();
  std::unique_ptr<nlohmann::json> root_;
};

// "3:17", 1-based, of a byte offset.
std::string line_and_column(std::string_view text, std::size_t offset);

}  // namespace supersonic::io
