// Writes JSON into a string, in order, with commas and escapes placed. Bytes that are not UTF-8
// become U+FFFD; numbers that JSON cannot hold (infinity, NaN) become null.
#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace supersonic::cli {

class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(bool flag);
  JsonWriter& value(double number);
  JsonWriter& value(std::integral auto number) {
    if constexpr (std::signed_integral<decltype(number)>)
      return integer(static_cast<std::int64_t>(number));
    else
      return natural(static_cast<std::uint64_t>(number));
  }
  JsonWriter& null();
  const std::string& text() const { return out_; }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  JsonWriter& integer(std::int64_t number);
  JsonWriter& natural(std::uint64_t number);
  void separate();
  void quote(std::string_view text);
  std::string out_;
};

}  // namespace supersonic::cli
