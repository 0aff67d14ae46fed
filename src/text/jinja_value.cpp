// Python's truth, equality, order and printing for template values.
#include "text/jinja_value.h"

#include <charconv>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "text/jinja_unicode.h"

namespace supersonic::text {

void Text::append(std::string_view more, Mark mark) {
  if (more.empty()) return;
  CHECK_FILE(bytes.size() + more.size() < (1u << 31), "template: a string grew over 2 GiB");
  bytes.append(more);
  const auto end = static_cast<std::uint32_t>(bytes.size());
  if (!runs.empty() && runs.back().mark == mark) {
    runs.back().end = end;
  } else {
    runs.push_back({end, mark});
  }
}

void Text::append(const Text& other, std::size_t begin, std::size_t end) {
  std::size_t at = 0;
  for (const Run& run : other.runs) {
    const std::size_t from = std::max(at, begin), to = std::min<std::size_t>(run.end, end);
    if (from < to) append(std::string_view(other.bytes).substr(from, to - from), run.mark);
    at = run.end;
    if (at >= end) break;
  }
}

Mark Text::mark_at(std::size_t offset) const {
  for (const Run& run : runs)
    if (offset < run.end) return run.mark;
  return {};
}

Value Value::undefined(const std::string* name) {
  Value v;
  v.name_ = name;
  return v;
}
Value Value::none() {
  Value v;
  v.kind_ = Kind::none;
  return v;
}
Value Value::boolean(bool b, Mark mark) {
  Value v;
  v.kind_ = Kind::boolean;
  v.integer_ = 0;
  v.boolean_ = b;
  v.mark_ = mark;
  return v;
}
Value Value::integer(std::int64_t i, Mark mark) {
  Value v;
  v.kind_ = Kind::integer;
  v.integer_ = i;
  v.mark_ = mark;
  return v;
}
Value Value::real(double d, Mark mark) {
  Value v;
  v.kind_ = Kind::real;
  v.real_ = d;
  v.mark_ = mark;
  return v;
}
Value Value::string(std::string_view bytes, Mark mark) {
  Text text;
  text.append(bytes, mark);
  return string(std::move(text));
}
Value Value::string(Text text) {
  Value v;
  v.kind_ = Kind::string;
  v.text_ = std::make_shared<const Text>(std::move(text));
  return v;
}

void type_error(const std::string& message) { throw Error(message, ErrorKind::bad_file); }

List* Heap::list(Flavor flavor) {
  lists_.emplace_back().flavor = flavor;
  return &lists_.back();
}
Dict* Heap::dict() { return &dicts_.emplace_back(); }
Namespace* Heap::space() { return &spaces_.emplace_back(); }

std::size_t Dict::probe(std::string_view key) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = std::hash<std::string_view>{}(key)&mask;
  while (slots_[slot] != 0) {
    const Value& have = items[slots_[slot] - 1].first;
    if (have.is(Kind::string) && have.bytes() == key) break;
    slot = (slot + 1) & mask;
  }
  return slot;
}

void Dict::index() {
  std::size_t size = 64;
  while (size < items.size() * 4) size *= 2;
  slots_.assign(size, 0);
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!items[i].first.is(Kind::string)) continue;
    slots_[probe(items[i].first.bytes())] = static_cast<std::uint32_t>(i + 1);
  }
}

const Value* Dict::find(std::string_view key) const {
  if (!slots_.empty()) {
    const std::uint32_t at = slots_[probe(key)];
    return at ? &items[at - 1].second : nullptr;
  }
  for (const auto& [have, value] : items)
    if (have.is(Kind::string) && have.bytes() == key) return &value;
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  if (key.is(Kind::string)) return find(std::string_view(key.bytes()));
  for (const auto& [have, value] : items)
    if (!have.is(Kind::string) && equal(have, key)) return &value;
  return nullptr;
}

void Dict::set(const Value& key, Value value) {
  if (const Value* have = find(key)) {
    *const_cast<Value*>(have) = std::move(value);
    return;
  }
  items.emplace_back(key, std::move(value));
  if (items.size() <= 16) return;
  if (slots_.empty() || items.size() * 2 > slots_.size()) {
    index();
  } else if (key.is(Kind::string)) {
    slots_[probe(key.bytes())] = static_cast<std::uint32_t>(items.size());
  }
}

bool truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return v.as_int() != 0;
    case Kind::real:
      return v.as_real() != 0;
    case Kind::string:
      return !v.bytes().empty();
    case Kind::list:
      return !v.as_list().sized() || !v.as_list().items.empty();
    case Kind::dict:
      return !v.as_dict().items.empty();
    default:
      return true;
  }
}

static void check_depth(int depth) {
  CHECK_FILE(depth < kMaxValueDepth, "template: a value nests over {} levels deep", kMaxValueDepth);
}

static bool equal_dicts(const Dict& a, const Dict& b, int depth) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.find(key);
    if (!other || !equal(value, *other, depth + 1)) return false;
  }
  return true;
}

bool equal(const Value& a, const Value& b, int depth) {
  check_depth(depth);
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::real) || b.is(Kind::real)) return a.as_real() == b.as_real();
    return a.as_int() == b.as_int();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return a.bytes() == b.bytes();
    case Kind::list: {
      const List &x = a.as_list(), &y = b.as_list();
      if (&x == &y) return true;
      if (x.flavor != y.flavor || x.items.size() != y.items.size() || !x.indexable()) return false;
      for (std::size_t i = 0; i < x.items.size(); ++i)
        if (!equal(x.items[i], y.items[i], depth + 1)) return false;
      return true;
    }
    case Kind::dict:
      return a.object() == b.object() || equal_dicts(a.as_dict(), b.as_dict(), depth);
    default:
      return a.object() == b.object();
  }
}

int compare(const Value& a, const Value& b, int depth) {
  check_depth(depth);
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::real) || b.is(Kind::real)) {
      const double x = a.as_real(), y = b.as_real();
      if (std::isnan(x) || std::isnan(y)) type_error("nan cannot be ordered");
      return x < y ? -1 : x > y;
    }
    return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int();
  }
  if (a.is(Kind::string) && b.is(Kind::string)) {
    const int c = a.bytes().compare(b.bytes());
    return c < 0 ? -1 : c > 0;
  }
  if (a.is(Kind::list) && b.is(Kind::list) && a.as_list().flavor == b.as_list().flavor) {
    const auto &x = a.as_list().items, &y = b.as_list().items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i], depth + 1)) return compare(x[i], y[i], depth + 1);
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  type_error(
      fmt::format("values of type '{}' and '{}' cannot be ordered", type_name(a), type_name(b)));
}

std::string_view type_name(const Value& v) {
  static constexpr std::string_view names[] = {"undefined", "NoneType", "bool", "int",
                                               "float",     "str",      "list", "dict",
                                               "namespace", "function", "loop"};
  static constexpr std::string_view lists[] = {"list", "tuple", "range", "dict view", "generator"};
  if (v.is(Kind::list)) return lists[static_cast<int>(v.as_list().flavor)];
  return names[static_cast<int>(v.kind())];
}

// Shortest digits that read back as the same double; an exponent where Python's repr has one.
std::string format_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto [end, ec] =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string s(buffer, end);
  const std::size_t e = s.find('e');
  const int exponent = std::stoi(s.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return s;
  const bool negative = s[0] == '-';
  std::string digits;
  for (char c : s.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  std::string out = negative ? "-" : "";
  if (exponent < 0) return out + "0." + std::string(-exponent - 1, '0') + digits;
  const std::size_t whole = exponent + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

// repr of a str: single quotes unless the text has single and no double ones; unprintable
// characters escaped.
static void repr_string(Text& out, const Text& text) {
  const std::string& s = text.bytes;
  const bool double_quoted = s.find('\'') != s.npos && s.find('"') == s.npos;
  const char quote = double_quoted ? '"' : '\'';
  out.append({&quote, 1}, {});
  std::size_t run = 0;
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t begin = at;
    const char32_t c = next_code_point(s, at);
    while (text.runs[run].end <= begin) ++run;
    const Mark mark = text.runs[run].mark;
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out.append(fmt::format("\\{}", static_cast<char>(c)), mark);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out.append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", mark);
    } else if (is_printable(c)) {
      out.append(std::string_view(s).substr(begin, at - begin), mark);
    } else {
      const auto code = static_cast<std::uint32_t>(c);
      out.append(code < 0x100     ? fmt::format("\\x{:02x}", code)
                 : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                  : fmt::format("\\U{:08x}", code),
                 mark);
    }
  }
  out.append({&quote, 1}, {});
}

static void repr_list(Text& out, const List& list, int depth) {
  if (!list.indexable() || list.flavor == Flavor::range) {
    type_error("a generator, a view or a range cannot be printed; apply |list first");
  }
  const bool tuple = list.flavor == Flavor::tuple;
  out.append(tuple ? "(" : "[", {});
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (i) out.append(", ", {});
    append_repr(out, list.items[i], depth + 1);
  }
  out.append(tuple ? (list.items.size() == 1 ? ",)" : ")") : "]", {});
}

void append_repr(Text& out, const Value& v, int depth) {
  check_depth(depth);
  switch (v.kind()) {
    case Kind::undefined:
      out.append("Undefined", {});
      return;
    case Kind::none:
      out.append("None", v.mark());
      return;
    case Kind::boolean:
      out.append(v.as_bool() ? "True" : "False", v.mark());
      return;
    case Kind::integer:
      out.append(fmt::format("{}", v.as_int()), v.mark());
      return;
    case Kind::real:
      out.append(format_real(v.as_real()), v.mark());
      return;
    case Kind::string:
      repr_string(out, v.text());
      return;
    case Kind::list:
      repr_list(out, v.as_list(), depth);
      return;
    case Kind::dict: {
      out.append("{", {});
      bool first = true;
      for (const auto& [key, value] : v.as_dict().items) {
        if (!first) out.append(", ", {});
        first = false;
        append_repr(out, key, depth + 1);
        out.append(": ", {});
        append_repr(out, value, depth + 1);
      }
      out.append("}", {});
      return;
    }
    default:
      type_error(fmt::format("a {} cannot be printed", type_name(v)));
  }
}

void append_str(Text& out, const Value& v) {
  if (v.is(Kind::string)) {
    out.append(v.text());
  } else if (!v.is(Kind::undefined)) {
    append_repr(out, v);
  }
}

}  // namespace supersonic::text
