// The comma before a value follows from the last byte written: nothing after an opening bracket, a
// blank after a colon.
#include "cli/json_writer.h"

#include <fmt/format.h>

#include <cmath>

namespace supersonic::cli {
namespace {

// Length of the well-formed UTF-8 sequence at the start of `s` (Unicode 15, table 3-7), or 0.
std::size_t utf8_length(std::string_view s) {
  const auto at = [&](std::size_t i) {
    return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u;
  };
  const unsigned a = at(0);
  const auto tail = [&](std::size_t i) { return (at(i) & 0xc0u) == 0x80u; };
  if (a < 0x80) return 1;
  if (a >= 0xc2 && a <= 0xdf) return tail(1) ? 2 : 0;
  if (a >= 0xe0 && a <= 0xef) {
    const bool second = tail(1) && !(a == 0xe0 && at(1) < 0xa0) && !(a == 0xed && at(1) > 0x9f);
    return second && tail(2) ? 3 : 0;
  }
  if (a >= 0xf0 && a <= 0xf4) {
    const bool second = tail(1) && !(a == 0xf0 && at(1) < 0x90) && !(a == 0xf4 && at(1) > 0x8f);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

void JsonWriter::separate() {
  if (out_.empty()) return;
  const char last = out_.back();
  if (last == ':') {
    out_ += ' ';
  } else if (last != '{' && last != '[') {
    out_ += ", ";
  }
}

void JsonWriter::quote(std::string_view text) {
  out_ += '"';
  while (!text.empty()) {
    const unsigned char c = static_cast<unsigned char>(text[0]);
    const std::size_t length = utf8_length(text);
    if (c == '"' || c == '\\') {
      out_ += '\\', out_ += static_cast<char>(c);
    } else if (c == '\n') {
      out_ += "\\n";
    } else if (c == '\t') {
      out_ += "\\t";
    } else if (c < 0x20 || c == 0x7f) {
      out_ += fmt::format("\\u{:04x}", c);
    } else if (length == 0) {
      out_ += "\xef\xbf\xbd";
    } else {
      out_ += text.substr(0, length);
    }
    text.remove_prefix(length ? length : 1);
  }
  out_ += '"';
}

JsonWriter& JsonWriter::open(char bracket) { return separate(), out_ += bracket, *this; }
JsonWriter& JsonWriter::close(char bracket) { return out_ += bracket, *this; }
JsonWriter& JsonWriter::key(std::string_view name) {
  return separate(), quote(name), out_ += ':', *this;
}
JsonWriter& JsonWriter::value(std::string_view text) { return separate(), quote(text), *this; }
JsonWriter& JsonWriter::value(bool flag) {
  return separate(), out_ += flag ? "true" : "false", *this;
}
JsonWriter& JsonWriter::null() { return separate(), out_ += "null", *this; }
JsonWriter& JsonWriter::integer(std::int64_t n) {
  return separate(), out_ += fmt::to_string(n), *this;
}
JsonWriter& JsonWriter::natural(std::uint64_t n) {
  return separate(), out_ += fmt::to_string(n), *this;
}
JsonWriter& JsonWriter::value(double n) {
  if (!std::isfinite(n)) return null();
  return separate(), out_ += fmt::format("{}", n), *this;
}

}  // namespace supersonic::cli
