// UTF-8 and the character classes of Python's str, as templates see them. Malformed bytes count as
// one character each.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace supersonic::text {

// Decodes the character at `at` and moves past it. A malformed byte comes back as 0xDC00 + byte (a
// lone surrogate).
char32_t next_code_point(std::string_view s, std::size_t& at);
void append_code_point(std::string& out, char32_t c);
std::size_t count_code_points(std::string_view s);

bool is_space(char32_t c);       // str.isspace
bool is_line_break(char32_t c);  // where str.splitlines cuts
bool is_printable(char32_t c);   // str.isprintable
bool is_lower(char32_t c);
bool is_upper(char32_t c);
std::string to_upper(char32_t c);  // full mapping: one character may become three
std::string to_lower(char32_t c);
std::string to_title(char32_t c);

// Byte offsets [begin, end) of s without the white space at its ends.
struct Trimmed {
  std::size_t begin, end;
};
Trimmed trim_space(std::string_view s, bool left = true, bool right = true);

}  // namespace supersonic::text
