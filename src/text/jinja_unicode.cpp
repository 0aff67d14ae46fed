// Character classes through utf8proc, plus the few full case mappings that it leaves out (Unicode
// SpecialCasing).
#include "text/jinja_unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace supersonic::text {

char32_t next_code_point(std::string_view s, std::size_t& at) {
  utf8proc_int32_t c = -1;
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(s.data()) + at;
  if (*p < 0x80) {
    ++at;
    return *p;
  }
  const auto n = utf8proc_iterate(p, static_cast<utf8proc_ssize_t>(s.size() - at), &c);
  if (n <= 0 || c < 0) {
    ++at;
    return 0xDC00 + *p;
  }
  at += static_cast<std::size_t>(n);
  return static_cast<char32_t>(c);
}

void append_code_point(std::string& out, char32_t c) {
  if (c >= 0xDC80 && c <= 0xDCFF) {  // a malformed byte travels through unchanged
    out += static_cast<char>(c - 0xDC00);
    return;
  }
  utf8proc_uint8_t buffer[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<std::size_t>(n));
}

std::size_t count_code_points(std::string_view s) {
  std::size_t n = 0;
  for (std::size_t at = 0; at < s.size(); ++n) next_code_point(s, at);
  return n;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_line_break(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

bool is_lower(char32_t c) { return utf8proc_islower(static_cast<utf8proc_int32_t>(c)); }
bool is_upper(char32_t c) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(c)); }

static std::string encode(std::initializer_list<char32_t> code_points) {
  std::string out;
  for (char32_t c : code_points) append_code_point(out, c);
  return out;
}

// Characters whose capital is more than one character (Unicode SpecialCasing, unconditional):
// capital, title form.
struct FullCase {
  char32_t code;
  const char8_t *upper, *title;
};
constexpr FullCase kFullCase[] = {{0xDF, u8"SS", u8"Ss"},
                                  {0x149, u8"\u02bcN", u8"\u02bcN"},
                                  {0x1F0, u8"J\u030c", u8"J\u030c"},
                                  {0x390, u8"\u0399\u0308\u0301", u8"\u0399\u0308\u0301"},
                                  {0x3B0, u8"\u03a5\u0308\u0301", u8"\u03a5\u0308\u0301"},
                                  {0x587, u8"\u0535\u0552", u8"\u0535\u0582"},
                                  {0x1E96, u8"H\u0331", u8"H\u0331"},
                                  {0x1E97, u8"T\u0308", u8"T\u0308"},
                                  {0x1E98, u8"W\u030a", u8"W\u030a"},
                                  {0x1E99, u8"Y\u030a", u8"Y\u030a"},
                                  {0x1E9A, u8"A\u02be", u8"A\u02be"},
                                  {0x1F50, u8"\u03a5\u0313", u8"\u03a5\u0313"},
                                  {0x1F52, u8"\u03a5\u0313\u0300", u8"\u03a5\u0313\u0300"},
                                  {0x1F54, u8"\u03a5\u0313\u0301", u8"\u03a5\u0313\u0301"},
                                  {0x1F56, u8"\u03a5\u0313\u0342", u8"\u03a5\u0313\u0342"},
                                  {0x1F80, u8"\u1f08\u0399", u8"\u1f88"},
                                  {0x1F81, u8"\u1f09\u0399", u8"\u1f89"},
                                  {0x1F82, u8"\u1f0a\u0399", u8"\u1f8a"},
                                  {0x1F83, u8"\u1f0b\u0399", u8"\u1f8b"},
                                  {0x1F84, u8"\u1f0c\u0399", u8"\u1f8c"},
                                  {0x1F85, u8"\u1f0d\u0399", u8"\u1f8d"},
                                  {0x1F86, u8"\u1f0e\u0399", u8"\u1f8e"},
                                  {0x1F87, u8"\u1f0f\u0399", u8"\u1f8f"},
                                  {0x1F88, u8"\u1f08\u0399", u8"\u1f88"},
                                  {0x1F89, u8"\u1f09\u0399", u8"\u1f89"},
                                  {0x1F8A, u8"\u1f0a\u0399", u8"\u1f8a"},
                                  {0x1F8B, u8"\u1f0b\u0399", u8"\u1f8b"},
                                  {0x1F8C, u8"\u1f0c\u0399", u8"\u1f8c"},
                                  {0x1F8D, u8"\u1f0d\u0399", u8"\u1f8d"},
                                  {0x1F8E, u8"\u1f0e\u0399", u8"\u1f8e"},
                                  {0x1F8F, u8"\u1f0f\u0399", u8"\u1f8f"},
                                  {0x1F90, u8"\u1f28\u0399", u8"\u1f98"},
                                  {0x1F91, u8"\u1f29\u0399", u8"\u1f99"},
                                  {0x1F92, u8"\u1f2a\u0399", u8"\u1f9a"},
                                  {0x1F93, u8"\u1f2b\u0399", u8"\u1f9b"},
                                  {0x1F94, u8"\u1f2c\u0399", u8"\u1f9c"},
                                  {0x1F95, u8"\u1f2d\u0399", u8"\u1f9d"},
                                  {0x1F96, u8"\u1f2e\u0399", u8"\u1f9e"},
                                  {0x1F97, u8"\u1f2f\u0399", u8"\u1f9f"},
                                  {0x1F98, u8"\u1f28\u0399", u8"\u1f98"},
                                  {0x1F99, u8"\u1f29\u0399", u8"\u1f99"},
                                  {0x1F9A, u8"\u1f2a\u0399", u8"\u1f9a"},
                                  {0x1F9B, u8"\u1f2b\u0399", u8"\u1f9b"},
                                  {0x1F9C, u8"\u1f2c\u0399", u8"\u1f9c"},
                                  {0x1F9D, u8"\u1f2d\u0399", u8"\u1f9d"},
                                  {0x1F9E, u8"\u1f2e\u0399", u8"\u1f9e"},
                                  {0x1F9F, u8"\u1f2f\u0399", u8"\u1f9f"},
                                  {0x1FA0, u8"\u1f68\u0399", u8"\u1fa8"},
                                  {0x1FA1, u8"\u1f69\u0399", u8"\u1fa9"},
                                  {0x1FA2, u8"\u1f6a\u0399", u8"\u1faa"},
                                  {0x1FA3, u8"\u1f6b\u0399", u8"\u1fab"},
                                  {0x1FA4, u8"\u1f6c\u0399", u8"\u1fac"},
                                  {0x1FA5, u8"\u1f6d\u0399", u8"\u1fad"},
                                  {0x1FA6, u8"\u1f6e\u0399", u8"\u1fae"},
                                  {0x1FA7, u8"\u1f6f\u0399", u8"\u1faf"},
                                  {0x1FA8, u8"\u1f68\u0399", u8"\u1fa8"},
                                  {0x1FA9, u8"\u1f69\u0399", u8"\u1fa9"},
                                  {0x1FAA, u8"\u1f6a\u0399", u8"\u1faa"},
                                  {0x1FAB, u8"\u1f6b\u0399", u8"\u1fab"},
                                  {0x1FAC, u8"\u1f6c\u0399", u8"\u1fac"},
                                  {0x1FAD, u8"\u1f6d\u0399", u8"\u1fad"},
                                  {0x1FAE, u8"\u1f6e\u0399", u8"\u1fae"},
                                  {0x1FAF, u8"\u1f6f\u0399", u8"\u1faf"},
                                  {0x1FB2, u8"\u1fba\u0399", u8"\u1fba\u0345"},
                                  {0x1FB3, u8"\u0391\u0399", u8"\u1fbc"},
                                  {0x1FB4, u8"\u0386\u0399", u8"\u0386\u0345"},
                                  {0x1FB6, u8"\u0391\u0342", u8"\u0391\u0342"},
                                  {0x1FB7, u8"\u0391\u0342\u0399", u8"\u0391\u0342\u0345"},
                                  {0x1FBC, u8"\u0391\u0399", u8"\u1fbc"},
                                  {0x1FC2, u8"\u1fca\u0399", u8"\u1fca\u0345"},
                                  {0x1FC3, u8"\u0397\u0399", u8"\u1fcc"},
                                  {0x1FC4, u8"\u0389\u0399", u8"\u0389\u0345"},
                                  {0x1FC6, u8"\u0397\u0342", u8"\u0397\u0342"},
                                  {0x1FC7, u8"\u0397\u0342\u0399", u8"\u0397\u0342\u0345"},
                                  {0x1FCC, u8"\u0397\u0399", u8"\u1fcc"},
                                  {0x1FD2, u8"\u0399\u0308\u0300", u8"\u0399\u0308\u0300"},
                                  {0x1FD3, u8"\u0399\u0308\u0301", u8"\u0399\u0308\u0301"},
                                  {0x1FD6, u8"\u0399\u0342", u8"\u0399\u0342"},
                                  {0x1FD7, u8"\u0399\u0308\u0342", u8"\u0399\u0308\u0342"},
                                  {0x1FE2, u8"\u03a5\u0308\u0300", u8"\u03a5\u0308\u0300"},
                                  {0x1FE3, u8"\u03a5\u0308\u0301", u8"\u03a5\u0308\u0301"},
                                  {0x1FE4, u8"\u03a1\u0313", u8"\u03a1\u0313"},
                                  {0x1FE6, u8"\u03a5\u0342", u8"\u03a5\u0342"},
                                  {0x1FE7, u8"\u03a5\u0308\u0342", u8"\u03a5\u0308\u0342"},
                                  {0x1FF2, u8"\u1ffa\u0399", u8"\u1ffa\u0345"},
                                  {0x1FF3, u8"\u03a9\u0399", u8"\u1ffc"},
                                  {0x1FF4, u8"\u038f\u0399", u8"\u038f\u0345"},
                                  {0x1FF6, u8"\u03a9\u0342", u8"\u03a9\u0342"},
                                  {0x1FF7, u8"\u03a9\u0342\u0399", u8"\u03a9\u0342\u0345"},
                                  {0x1FFC, u8"\u03a9\u0399", u8"\u1ffc"},
                                  {0xFB00, u8"FF", u8"Ff"},
                                  {0xFB01, u8"FI", u8"Fi"},
                                  {0xFB02, u8"FL", u8"Fl"},
                                  {0xFB03, u8"FFI", u8"Ffi"},
                                  {0xFB04, u8"FFL", u8"Ffl"},
                                  {0xFB05, u8"ST", u8"St"},
                                  {0xFB06, u8"ST", u8"St"},
                                  {0xFB13, u8"\u0544\u0546", u8"\u0544\u0576"},
                                  {0xFB14, u8"\u0544\u0535", u8"\u0544\u0565"},
                                  {0xFB15, u8"\u0544\u053b", u8"\u0544\u056b"},
                                  {0xFB16, u8"\u054e\u0546", u8"\u054e\u0576"},
                                  {0xFB17, u8"\u0544\u053d", u8"\u0544\u056d"}};

const FullCase* full_case(char32_t c) {
  const auto* at =
      std::lower_bound(std::begin(kFullCase), std::end(kFullCase), c,
                       [](const FullCase& have, char32_t code) { return have.code < code; });
  return at != std::end(kFullCase) && at->code == c ? at : nullptr;
}

std::string to_upper(char32_t c) {
  if (const FullCase* full = full_case(c)) return reinterpret_cast<const char*>(full->upper);
  return encode({static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)))});
}

std::string to_lower(char32_t c) {
  if (c == 0x130) return encode({'i', 0x307});
  return encode({static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)))});
}

std::string to_title(char32_t c) {
  if (const FullCase* full = full_case(c)) return reinterpret_cast<const char*>(full->title);
  return encode({static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)))});
}

Trimmed trim_space(std::string_view s, bool left, bool right) {
  std::size_t begin = 0;
  while (left && begin < s.size()) {
    std::size_t at = begin;
    if (!is_space(next_code_point(s, at))) break;
    begin = at;
  }
  std::size_t end = begin;  // one past the last character that is not white space
  if (!right) return {begin, s.size()};
  for (std::size_t at = begin; at < s.size();)
    if (!is_space(next_code_point(s, at))) end = at;
  return {begin, end};
}

}  // namespace supersonic::text
