// Template source → tokens, with Jinja's white-space control: trim_blocks and lstrip_blocks on, a
// trailing newline dropped.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::text::jinja {

enum class Tok : std::uint8_t {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Token {
  Tok type;
  int line;
  std::string text;  // data, name, operator, or the decoded string
  std::int64_t integer = 0;
  double real = 0;
  bool is(std::string_view op) const { return type == Tok::op && text == op; }
  bool is_name(std::string_view name) const { return type == Tok::name && text == name; }
};

// Throws Error(bad_file) with `name` and the line. Sources over 1 MiB are refused.
std::vector<Token> tokenize(std::string_view source, const std::string& name);

}  // namespace supersonic::text::jinja
