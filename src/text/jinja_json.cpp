// A recursive JSON reader with bounded depth, and json.dumps.
#include "text/jinja_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "text/jinja_unicode.h"

namespace supersonic::text {
namespace {

class Reader {
 public:
  Reader(std::string_view s, Heap& heap, const JsonOptions& options)
      : s_(s), heap_(heap), options_(options) {}

  Value document() {
    Value v = value(0);
    space();
    if (at_ != s_.size()) refuse("text follows the value");
    return v;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::bad_file, "at byte {}: {}", at_, what);
  }
  void space() {
    while (at_ < s_.size() &&
           (s_[at_] == ' ' || s_[at_] == '\n' || s_[at_] == '\r' || s_[at_] == '\t'))
      ++at_;
  }
  bool skip(std::string_view what) {
    if (!s_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }

  Value value(int depth) {
    if (depth > options_.max_depth)
      refuse(fmt::format("nested over {} levels deep", options_.max_depth));
    space();
    if (at_ >= s_.size()) refuse("a value is missing");
    const char c = s_[at_];
    if (c == '{') return object(depth);
    if (c == '[') return array(depth);
    if (c == '"') {
      return Value::string(string(), options_.mark);
    }
    if (skip("true")) return Value::boolean(true, options_.mark);
    if (skip("false")) return Value::boolean(false, options_.mark);
    if (skip("null")) return Value::none();
    if (skip("NaN")) return Value::real(std::nan(""), options_.mark);
    if (skip("Infinity"))
      return Value::real(std::numeric_limits<double>::infinity(), options_.mark);
    if (skip("-Infinity"))
      return Value::real(-std::numeric_limits<double>::infinity(), options_.mark);
    if (c == '-' || (c >= '0' && c <= '9')) return number();
    refuse(fmt::format("'{}' does not start a value",
                       static_cast<unsigned char>(c) < 0x80 && c >= ' ' ? c : '?'));
  }

  Value array(int depth) {
    ++at_;
    List* list = heap_.list();
    list->frozen = true;
    for (space(); !skip("]"); space()) {
      if (!list->items.empty() && !skip(",")) refuse("expected ',' or ']'");
      list->items.push_back(value(depth + 1));
    }
    return Value::list(list);
  }

  Value object(int depth) {
    ++at_;
    Dict* dict = heap_.dict();
    for (space(); !skip("}"); space()) {
      if (!dict->items.empty() && !skip(",")) refuse("expected ',' or '}'");
      space();
      if (at_ >= s_.size() || s_[at_] != '"') refuse("expected a key in double quotes");
      Value key = Value::string(string(), options_.mark);
      space();
      if (!skip(":")) refuse("expected ':' after a key");
      dict->set(key, value(depth + 1));
    }
    return Value::dict(dict);
  }

  Value number() {
    const std::size_t begin = at_;
    if (s_[at_] == '-') ++at_;
    const auto digits = [&] {
      const std::size_t from = at_;
      while (at_ < s_.size() && s_[at_] >= '0' && s_[at_] <= '9') ++at_;
      if (at_ == from) refuse("a digit is missing");
      return at_ - from;
    };
    const std::size_t first = at_;
    if (digits() > 1 && s_[first] == '0') refuse("a number starts with 0");
    bool real = false;
    if (at_ < s_.size() && s_[at_] == '.') {
      real = true;
      ++at_;
      digits();
    }
    if (at_ < s_.size() && (s_[at_] == 'e' || s_[at_] == 'E')) {
      real = true;
      ++at_;
      if (at_ < s_.size() && (s_[at_] == '+' || s_[at_] == '-')) ++at_;
      digits();
    }
    const char *from = s_.data() + begin, *to = s_.data() + at_;
    std::int64_t i = 0;
    if (!real && std::from_chars(from, to, i).ec == std::errc())
      return Value::integer(i, options_.mark);
    double d = 0;
    if (std::from_chars(from, to, d).ec != std::errc())
      d = out_of_range(std::string_view(from, to - from));
    return Value::real(d, options_.mark);
  }

  // Beyond a double's range: infinite when the exponent is positive, else zero, as Python reads it.
  static double out_of_range(std::string_view text) {
    const std::size_t e = text.find_first_of("eE");
    const bool small = e != text.npos && text.substr(e + 1).starts_with("-");
    const double size = small ? 0 : std::numeric_limits<double>::infinity();
    return text[0] == '-' ? -size : size;
  }

  std::uint32_t hex4() {
    std::uint32_t code = 0;
    if (at_ + 4 > s_.size()) refuse("a \\u escape is cut off");
    const auto [ptr, ec] = std::from_chars(s_.data() + at_, s_.data() + at_ + 4, code, 16);
    if (ec != std::errc() || ptr != s_.data() + at_ + 4)
      refuse("a \\u escape needs four hexadecimal digits");
    at_ += 4;
    return code;
  }

  void unicode_escape(std::string& out) {
    std::uint32_t code = hex4();
    if (code >= 0xD800 && code < 0xDC00 && s_.substr(at_).starts_with("\\u")) {
      const std::size_t back = at_;
      at_ += 2;
      const std::uint32_t low = hex4();
      if (low >= 0xDC00 && low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else {
        at_ = back;
      }
    }
    append_code_point(out, code >= 0xD800 && code < 0xE000 ? 0xFFFD : code);
  }

  std::string string() {
    std::string out;
    ++at_;
    while (true) {
      std::size_t end = at_;
      while (end < s_.size() && s_[end] != '"' && s_[end] != '\\' &&
             static_cast<unsigned char>(s_[end]) >= 0x20)
        ++end;
      out.append(s_.substr(at_, end - at_));
      at_ = end;
      if (at_ >= s_.size()) refuse("a string is not closed");
      const char c = s_[at_++];
      if (c == '"') return out;
      if (c != '\\') {
        --at_;
        refuse("a control character stands in a string; write it as \\n, \\t or \\u00XX");
      }
      if (at_ >= s_.size()) refuse("a string is not closed");
      static constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      const char e = s_[at_++];
      if (const auto i = from.find(e); i != from.npos) {
        out += to[i];
      } else if (e == 'u') {
        unicode_escape(out);
      } else {
        --at_;
        refuse("an unknown escape in a string");
      }
    }
  }

  std::string_view s_;
  Heap& heap_;
  const JsonOptions& options_;
  std::size_t at_ = 0;
};

void json_string(Text& out, const Text& text, bool ascii) {
  out.append("\"", {});
  const std::string& s = text.bytes;
  std::size_t run = 0;
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t begin = at;
    const char32_t c = next_code_point(s, at);
    while (text.runs[run].end <= begin) ++run;
    const Mark mark = text.runs[run].mark;
    static constexpr std::string_view from = "\"\\\n\r\t\b\f", to = "\"\\nrtbf";
    const std::size_t plain = c < 0x80 ? from.find(static_cast<char>(c)) : from.npos;
    if (plain != from.npos) {
      out.append(fmt::format("\\{}", to[plain]), mark);
    } else if (c < 0x20 || (ascii && c >= 0x7F)) {
      if (c < 0x10000) {
        out.append(fmt::format("\\u{:04x}", static_cast<std::uint32_t>(c)), mark);
      } else {
        const std::uint32_t v = c - 0x10000;
        out.append(fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF)),
                   mark);
      }
    } else {
      out.append(std::string_view(s).substr(begin, at - begin), mark);
    }
  }
  out.append("\"", {});
}

void line_break(Text& out, const JsonLayout& layout, int depth) {
  if (!layout.has_indent) return;
  out.append("\n", {});
  for (int i = 0; i < depth; ++i) out.append(layout.indent, {});
}

std::string real_json(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return format_real(d);
}

void json_key(Text& out, const Value& key, bool ascii) {
  Text text;
  switch (key.kind()) {
    case Kind::string:
      return json_string(out, key.text(), ascii);
    case Kind::integer:
      text.append(fmt::format("{}", key.as_int()), key.mark());
      break;
    case Kind::real:
      text.append(real_json(key.as_real()), key.mark());
      break;
    case Kind::boolean:
      text.append(key.as_bool() ? "true" : "false", key.mark());
      break;
    case Kind::none:
      text.append("null", key.mark());
      break;
    default:
      type_error(fmt::format("tojson: a key of type {} is not allowed", type_name(key)));
  }
  json_string(out, text, ascii);
}

void json_list(Text& out, const List& list, const JsonLayout& layout, int depth) {
  if (list.flavor > Flavor::tuple)
    type_error("tojson: a generator, view or range is not JSON; apply |list first");
  if (list.items.empty()) return out.append("[]", {});
  out.append("[", {});
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (i) out.append(layout.item_separator, {});
    line_break(out, layout, depth + 1);
    append_json(out, list.items[i], layout, depth + 1);
  }
  line_break(out, layout, depth);
  out.append("]", {});
}

void json_dict(Text& out, const Dict& dict, const JsonLayout& layout, int depth) {
  if (dict.items.empty()) return out.append("{}", {});
  std::vector<const std::pair<Value, Value>*> order;
  for (const auto& item : dict.items) order.push_back(&item);
  if (layout.sort_keys) {
    std::stable_sort(order.begin(), order.end(),
                     [](const auto* a, const auto* b) { return compare(a->first, b->first) < 0; });
  }
  out.append("{", {});
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i) out.append(layout.item_separator, {});
    line_break(out, layout, depth + 1);
    json_key(out, order[i]->first, layout.ensure_ascii);
    out.append(layout.key_separator, {});
    append_json(out, order[i]->second, layout, depth + 1);
  }
  line_break(out, layout, depth);
  out.append("}", {});
}

}  // namespace

Value parse_json(std::string_view json, Heap& heap, const JsonOptions& options) {
  return Reader(json, heap, options).document();
}

void append_json(Text& out, const Value& v, const JsonLayout& layout, int depth) {
  CHECK_FILE(depth < kMaxValueDepth, "tojson: nested over {} levels deep", kMaxValueDepth);
  switch (v.kind()) {
    case Kind::none:
      return out.append("null", v.mark());
    case Kind::boolean:
      return out.append(v.as_bool() ? "true" : "false", v.mark());
    case Kind::integer:
      return out.append(fmt::format("{}", v.as_int()), v.mark());
    case Kind::real:
      return out.append(real_json(v.as_real()), v.mark());
    case Kind::string:
      return json_string(out, v.text(), layout.ensure_ascii);
    case Kind::list:
      return json_list(out, v.as_list(), layout, depth);
    case Kind::dict:
      return json_dict(out, v.as_dict(), layout, depth);
    default:
      type_error(fmt::format("tojson: a value of type {} is not JSON", type_name(v)));
  }
}

}  // namespace supersonic::text
