// The lexer: text up to the next tag, then the tag's tokens up to its closing mark while brackets
// balance.
#include "text/jinja_lexer.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "text/jinja_unicode.h"

namespace supersonic::text::jinja {
namespace {

constexpr std::size_t kMaxSource = 1 << 20;

// Line ends become "\n"; one at the very end goes.
std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string source, const std::string& name) : s_(std::move(source)), name_(name) {}

  std::vector<Token> run() {
    while (at_ < s_.size()) text_then_tag();
    push(Tok::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(const std::string& message) {
    throw Error(fmt::format("template {}, line {}: {}", name_, line_, message),
                ErrorKind::bad_file);
  }
  bool starts(std::string_view what) const {
    return std::string_view(s_).substr(at_).starts_with(what);
  }
  void push(Tok type, std::string text) { tokens_.push_back({type, line_, std::move(text)}); }
  void advance(std::size_t to) {
    line_ += static_cast<int>(std::count(s_.begin() + at_, s_.begin() + to, '\n'));
    at_ = to;
  }
  void skip_space() {
    advance(at_ + trim_space(std::string_view(s_).substr(at_), true, false).begin);
  }

  // Emits text [at_, tag) as the tag's sign wants it; lstrip: a block or comment.
  void emit_text(std::size_t tag, char sign, bool lstrip) {
    std::string_view text = std::string_view(s_).substr(at_, tag - at_);
    if (sign == '-') {
      text = text.substr(0, trim_space(text, false, true).end);
    } else if (sign != '+' && lstrip) {
      const std::size_t newline = text.rfind('\n');
      const std::size_t start = newline == text.npos ? 0 : newline + 1;
      const bool own_line = newline != text.npos || line_start_;
      if (own_line && trim_space(text.substr(start), true, false).begin == text.size() - start)
        text = text.substr(0, start);
    }
    if (!text.empty()) push(Tok::data, std::string(text));
    advance(tag);
  }

  // After a tag's end: sign '-' eats all white space, else (blocks and comments) one newline unless
  // '+'.
  void after_tag(char sign, bool trim) {
    const std::size_t before = at_;
    if (sign == '-') {
      skip_space();
    } else if (trim && sign != '+' && at_ < s_.size() && s_[at_] == '\n') {
      advance(at_ + 1);
    }
    line_start_ = at_ > before && s_[at_ - 1] == '\n';
  }

  char sign_at(std::size_t at) const {
    return at < s_.size() && (s_[at] == '-' || s_[at] == '+') ? s_[at] : 0;
  }

  void text_then_tag() {
    std::size_t tag = at_;
    while (true) {
      tag = s_.find('{', tag);
      if (tag == s_.npos || tag + 1 >= s_.size()) {
        push(Tok::data, s_.substr(at_));
        at_ = s_.size();
        return;
      }
      if (s_[tag + 1] == '{' || s_[tag + 1] == '%' || s_[tag + 1] == '#') break;
      ++tag;
    }
    const char kind = s_[tag + 1];
    const char sign = sign_at(tag + 2);
    emit_text(tag, sign, kind != '{');
    if (kind == '#') {
      comment();
    } else if (kind == '{') {
      advance(at_ + 2 + (sign != 0));
      push(Tok::variable_begin, "");
      inside("}}", Tok::variable_end);
    } else if (!raw()) {
      advance(at_ + 2 + (sign != 0));
      push(Tok::block_begin, "");
      inside("%}", Tok::block_end);
    }
  }

  void comment() {
    const std::size_t close = s_.find("#}", at_ + 2);
    if (close == s_.npos) fail_here("a comment is not closed; add '#}'");
    const char sign = close > at_ + 2 ? sign_at(close - 1) : 0;
    advance(close + 2);
    after_tag(sign, true);
  }

  // {% raw %} … {% endraw %}: text without tags. False when the tag at at_ is another.
  bool raw() {
    std::size_t p = at_ + 2 + (sign_at(at_ + 2) != 0);
    const auto skip = [&] { p += trim_space(std::string_view(s_).substr(p), true, false).begin; };
    skip();
    if (s_.compare(p, 3, "raw") != 0) return false;
    p += 3;
    skip();
    const bool eat = p < s_.size() && s_[p] == '-';
    if (s_.compare(p + eat, 2, "%}") != 0) return false;
    advance(p + eat + 2);
    if (eat) skip_space();
    line_start_ = false;
    for (std::size_t tag = s_.find("{%", at_); tag != s_.npos; tag = s_.find("{%", tag + 1)) {
      const char open = sign_at(tag + 2);
      p = tag + 2 + (open != 0);
      skip();
      if (s_.compare(p, 6, "endraw") != 0) continue;
      p += 6;
      skip();
      const char close = sign_at(p);
      p += close != 0;
      if (s_.compare(p, 2, "%}") != 0) continue;
      emit_text(tag, open, true);
      advance(p + 2);
      after_tag(close, true);
      return true;
    }
    fail_here("a raw block is not closed; add '{% endraw %}'");
  }

  void inside(std::string_view close, Tok end) {
    std::string brackets;
    const int opened = line_;
    while (true) {
      skip_space();
      if (at_ >= s_.size()) {
        line_ = opened;
        fail_here(fmt::format("a tag is not closed; add '{}'", close));
      }
      if (brackets.empty()) {
        const char sign = sign_at(at_);
        const bool signed_end =
            sign && (sign == '-' || end == Tok::block_end) && s_.compare(at_ + 1, 2, close) == 0;
        if (signed_end || starts(close)) {
          push(end, "");
          advance(at_ + 2 + signed_end);
          after_tag(signed_end ? sign : 0, end == Tok::block_end);
          return;
        }
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const char c = s_[at_];
    if (is_digit(c)) return number();
    if (c == '"' || c == '\'') return string(c);
    if (is_name_start(c)) {
      std::size_t end = at_;
      while (end < s_.size() && (is_name_start(s_[end]) || is_digit(s_[end]))) ++end;
      push(Tok::name, s_.substr(at_, end - at_));
      return advance(end);
    }
    static constexpr std::string_view ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                               "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                               ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (std::string_view op : ops) {
      if (!starts(op)) continue;
      balance(op[0], brackets);
      push(Tok::op, std::string(op));
      return advance(at_ + op.size());
    }
    fail_here(fmt::format("unexpected character '{}'", c));
  }

  void balance(char c, std::string& brackets) {
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (brackets.empty() || brackets.back() != c) fail_here(fmt::format("unexpected '{}'", c));
    brackets.pop_back();
  }

  void number() {
    std::size_t end = at_;
    int base = 10;
    if (s_[at_] == '0' && at_ + 1 < s_.size()) {
      const char b = s_[at_ + 1] | 0x20;
      base = b == 'x' ? 16 : b == 'o' ? 8 : b == 'b' ? 2 : 10;
    }
    if (base != 10) end += 2;
    const auto digits = [&] {
      while (end < s_.size() &&
             (is_digit(s_[end]) || s_[end] == '_' ||
              (base == 16 && std::isxdigit(static_cast<unsigned char>(s_[end])))))
        ++end;
    };
    digits();
    bool real = false;
    const bool after_dot = at_ > 0 && s_[at_ - 1] == '.';
    if (base == 10 && !after_dot) {
      if (end + 1 < s_.size() && s_[end] == '.' && is_digit(s_[end + 1])) {
        real = true;
        ++end;
        digits();
      }
      std::size_t e = end;
      if (e < s_.size() && (s_[e] | 0x20) == 'e') {
        ++e;
        if (e < s_.size() && (s_[e] == '+' || s_[e] == '-')) ++e;
        if (e < s_.size() && is_digit(s_[e])) {
          real = true;
          end = e;
          digits();
        }
      }
    }
    std::string text = s_.substr(at_, end - at_);
    std::erase(text, '_');
    push(real ? Tok::real : Tok::integer, text);
    Token& token = tokens_.back();
    const char* first = text.data() + (base == 10 ? 0 : 2);
    const char* last = text.data() + text.size();
    const auto result = real ? std::from_chars(first, last, token.real)
                             : std::from_chars(first, last, token.integer, base);
    if (result.ec != std::errc() || result.ptr != last)
      fail_here(fmt::format("the number {} does not fit", text));
    advance(end);
  }

  char32_t hex(std::size_t& p, int digits) {
    std::uint32_t code = 0;
    const char* first = s_.data() + p;
    if (p + digits > s_.size()) fail_here("a string escape is cut off");
    const auto [ptr, ec] = std::from_chars(first, first + digits, code, 16);
    if (ec != std::errc() || ptr != first + digits || code > 0x10FFFF ||
        (code >= 0xD800 && code < 0xE000)) {
      fail_here("a string escape is not a character");
    }
    p += digits;
    return code;
  }

  void escape(std::string& out, std::size_t& p) {
    const char c = s_[p++];
    static constexpr std::string_view from = "abfnrtv\\'\"", to = "\a\b\f\n\r\t\v\\'\"";
    if (const auto i = from.find(c); i != from.npos) {
      out += to[i];
    } else if (c == '\n') {
      return;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      append_code_point(out, hex(p, c == 'x' ? 2 : c == 'u' ? 4 : 8));
    } else if (c >= '0' && c <= '7') {
      std::uint32_t code = c - '0';
      for (int i = 0; i < 2 && p < s_.size() && s_[p] >= '0' && s_[p] <= '7'; ++i)
        code = code * 8 + (s_[p++] - '0');
      append_code_point(out, code);
    } else {
      out += '\\';
      out += c;
    }
  }

  void string(char quote) {
    std::string out;
    std::size_t p = at_ + 1;
    while (p < s_.size() && s_[p] != quote) {
      if (s_[p] == '\\' && p + 1 < s_.size()) {
        escape(out, ++p);
      } else {
        out += s_[p++];
      }
    }
    if (p >= s_.size()) fail_here("a string is not closed");
    push(Tok::string, std::move(out));
    advance(p + 1);
  }

  std::string s_;
  const std::string& name_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) {
  CHECK_FILE(source.size() <= kMaxSource, "template {}: {} bytes; a template may have {}", name,
             source.size(), kMaxSource);
  return Lexer(normalize(source), name).run();
}

}  // namespace supersonic::text::jinja
