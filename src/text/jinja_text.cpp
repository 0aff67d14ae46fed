// Case mapping, stripping, replacing, splitting and formatting of marked text.
#include "text/jinja_text.h"

#include <algorithm>

#include "core/error.h"
#include "text/jinja_eval.h"

namespace supersonic::text::jinja {

Text map_case(const Text& text, Case how) {
  Text out;
  std::size_t run = 0;
  bool start = true;
  const std::string_view s = text.bytes;
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t begin = at;
    const char32_t c = next_code_point(s, at);
    while (text.runs[run].end <= begin) ++run;
    const bool upper = how == Case::upper || (start && how != Case::lower);
    // The capital sigma that ends a word has its own small letter.
    const bool final_sigma = c == 0x3A3 && !upper && begin > 0 &&
                             !is_space(static_cast<unsigned char>(s[begin - 1])) &&
                             (at == s.size() || is_space(static_cast<unsigned char>(s[at])));
    if (final_sigma) {
      out.append("\u03c2", text.runs[run].mark);
    } else {
      out.append(!upper                    ? to_lower(c)
                 : how == Case::capitalize ? to_title(c)
                                           : to_upper(c),
                 text.runs[run].mark);
    }
    // title: a word starts after white space, a hyphen or an opening bracket
    start = how == Case::title &&
            (is_space(c) || c == '-' || c == '(' || c == '[' || c == '{' || c == '<');
  }
  return out;
}

static Trimmed strip_range(std::string_view s, const std::string* chars, bool left, bool right) {
  if (!chars) return trim_space(s, left, right);
  std::u32string set;
  for (std::size_t at = 0; at < chars->size();) set += next_code_point(*chars, at);
  const auto in_set = [&](char32_t c) { return set.find(c) != set.npos; };
  std::size_t begin = 0;
  while (left && begin < s.size()) {
    std::size_t at = begin;
    if (!in_set(next_code_point(s, at))) break;
    begin = at;
  }
  if (!right) return {begin, s.size()};
  std::size_t end = begin;
  for (std::size_t at = begin; at < s.size();)
    if (!in_set(next_code_point(s, at))) end = at;
  return {begin, end};
}

Text strip(const Text& text, const std::string* chars, bool left, bool right) {
  const Trimmed t = strip_range(text.bytes, chars, left, right);
  Text out;
  out.append(text, t.begin, t.end);
  return out;
}

// Copies ranges of a text in ascending order without walking its runs from the start each time.
class Copier {
 public:
  explicit Copier(const Text& text) : text_(text) {}
  void copy(Text& out, std::size_t begin, std::size_t end) {
    while (begin < end) {
      while (text_.runs[run_].end <= begin) ++run_;
      const std::size_t to = std::min<std::size_t>(end, text_.runs[run_].end);
      out.append(std::string_view(text_.bytes).substr(begin, to - begin), text_.runs[run_].mark);
      begin = to;
    }
  }

 private:
  const Text& text_;
  std::size_t run_ = 0;
};

Text replace_all(const Text& text, std::string_view from, const Text& to, std::int64_t count) {
  Text out;
  Copier copier(text);
  const std::string_view s = text.bytes;
  std::size_t done = 0;
  for (std::int64_t n = 0; count < 0 || n < count; ++n) {
    std::size_t hit;
    if (from.empty()) {  // between all characters, and at both ends
      hit = done;
      if (n > 0) {
        if (hit >= s.size()) break;
        next_code_point(s, hit);
      }
    } else {
      hit = s.find(from, done);
      if (hit == s.npos) break;
    }
    copier.copy(out, done, hit);
    out.append(to);
    done = hit + from.size();
  }
  copier.copy(out, done, s.size());
  return out;
}

std::vector<Trimmed> split_space(std::string_view s, std::int64_t limit) {
  std::vector<Trimmed> out;
  std::size_t at = 0;
  while (true) {
    at += trim_space(s.substr(at), true, false).begin;
    if (at >= s.size()) return out;
    if (limit >= 0 && static_cast<std::int64_t>(out.size()) >= limit) {
      out.push_back({at, s.size()});
      return out;
    }
    const std::size_t begin = at;
    std::size_t end = at;
    for (std::size_t p = at; p < s.size(); end = p)
      if (is_space(next_code_point(s, p))) break;
    out.push_back({begin, end});
    at = end;
  }
}

std::vector<Trimmed> split_space_right(std::string_view s, std::int64_t limit) {
  std::vector<Trimmed> all = split_space(s, -1);
  if (limit < 0 || all.size() <= static_cast<std::size_t>(limit) + 1) {
    if (limit == 0 && !all.empty()) all = {{0, all.back().end}};
    if (limit >= 0 && all.size() == static_cast<std::size_t>(limit) + 1 && !all.empty())
      all.front().begin = 0;
    return all;
  }
  const std::size_t joined = all.size() - static_cast<std::size_t>(limit);
  std::vector<Trimmed> out = {{0, all[joined - 1].end}};
  out.insert(out.end(), all.begin() + static_cast<std::ptrdiff_t>(joined), all.end());
  return out;
}

std::vector<Trimmed> split_on(std::string_view s, std::string_view separator, std::int64_t limit) {
  std::vector<Trimmed> out;
  std::size_t at = 0;
  while (limit < 0 || static_cast<std::int64_t>(out.size()) < limit) {
    const std::size_t hit = s.find(separator, at);
    if (hit == s.npos) break;
    out.push_back({at, hit});
    at = hit + separator.size();
  }
  out.push_back({at, s.size()});
  return out;
}

std::vector<Trimmed> split_on_right(std::string_view s, std::string_view separator,
                                    std::int64_t limit) {
  std::vector<Trimmed> out;
  std::size_t end = s.size();
  while ((limit < 0 || static_cast<std::int64_t>(out.size()) < limit) && end >= separator.size()) {
    const std::size_t hit = s.rfind(separator, end - separator.size());
    if (hit == s.npos) break;
    out.push_back({hit + separator.size(), end});
    end = hit;
  }
  out.push_back({0, end});
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Trimmed> split_lines(std::string_view s) {
  std::vector<Trimmed> out;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t end = at;
    const char32_t c = next_code_point(s, at);
    if (!is_line_break(c)) continue;
    if (c == '\r' && at < s.size() && s[at] == '\n') ++at;
    out.push_back({begin, end});
    begin = at;
  }
  if (begin < s.size()) out.push_back({begin, s.size()});
  return out;
}

namespace {

struct Spec {
  std::string flags;
  int width = 0, precision = -1;
};

int take_number(std::string_view s, std::size_t& at) {
  int n = 0;
  while (at < s.size() && s[at] >= '0' && s[at] <= '9' && n < 10000) n = n * 10 + (s[at++] - '0');
  return n;
}

std::string number_text(Evaluator& e, const Spec& spec, char type, const Value& v) {
  if (!v.is_number()) e.refuse(fmt::format("'%{}' needs a number, got a {}", type, type_name(v)));
  if (spec.width > 1000 || spec.precision > 100) e.refuse("a format is over 1000 characters wide");
  char buffer[1600];
  std::string pattern = "%" + spec.flags + (spec.width ? std::to_string(spec.width) : "");
  if (spec.precision >= 0) pattern += "." + std::to_string(spec.precision);
  if (type == 'd' || type == 'i' || type == 'u' || type == 'x' || type == 'X' || type == 'o') {
    pattern += std::string("ll") + (type == 'i' || type == 'u' ? 'd' : type);
    const long long i = v.is(Kind::real)
                            ? static_cast<long long>(std::clamp(v.as_real(), -9e18, 9e18))
                            : v.as_int();
    std::snprintf(buffer, sizeof buffer, pattern.c_str(), i);
  } else {
    pattern += type;
    std::snprintf(buffer, sizeof buffer, pattern.c_str(), v.as_real());
  }
  return buffer;
}

void append_padded(Text& out, const Text& text, const Spec& spec) {
  const std::size_t n = count_code_points(text.bytes);
  const std::string pad(
      spec.width > 0 && static_cast<std::size_t>(spec.width) > n ? spec.width - n : 0, ' ');
  const bool left = spec.flags.find('-') != std::string::npos;
  if (!left) out.append(pad, {});
  out.append(text);
  if (left) out.append(pad, {});
}

}  // namespace

Text format_percent(Evaluator& e, const Text& format, const Args& args) {
  Text out;
  Copier copier(format);
  const std::string_view s = format.bytes;
  std::size_t done = 0, next = 0;
  for (std::size_t at = s.find('%'); at != s.npos; at = s.find('%', done)) {
    copier.copy(out, done, at);
    Spec spec;
    const Value* v = nullptr;
    if (++at < s.size() && s[at] == '(') {
      const std::size_t close = s.find(')', at);
      if (close == s.npos) e.refuse("a format key is not closed");
      const std::string_view key = s.substr(at + 1, close - at - 1);
      v = args.get(~std::size_t{0}, key);
      if (!v && args.items.size() == 1 && args.items[0].is(Kind::dict))
        v = args.items[0].as_dict().find(key);
      if (!v) e.refuse(fmt::format("the format key '{}' is missing", key));
      at = close + 1;
    }
    while (at < s.size() && std::string_view("-+ 0#").find(s[at]) != std::string_view::npos &&
           spec.flags.size() < 8)
      spec.flags += s[at++];
    spec.width = take_number(s, at);
    if (at < s.size() && s[at] == '.') spec.precision = take_number(s, ++at);
    if (at >= s.size()) e.refuse("a format ends after '%'");
    const char type = s[at];
    done = at + 1;
    if (type == '%') {
      out.append("%", {});
      continue;
    }
    if (!v && next >= args.items.size()) e.refuse("a format has too few values");
    const Value value = v ? *v : args.items[next++];
    if (type == 's' || type == 'r') {
      if (spec.width > 1000) e.refuse("a format is over 1000 characters wide");
      Text text;
      if (type == 's') {
        append_str(text, value);
      } else {
        append_repr(text, value);
      }
      append_padded(out, text, spec);
    } else if (std::string_view("diuxXofFeEgG").find(type) != std::string_view::npos) {
      out.append(number_text(e, spec, type, value), value.mark());
    } else {
      e.refuse(fmt::format("unknown format '%{}'", type));
    }
    e.charge(8);
  }
  copier.copy(out, done, s.size());
  return out;
}

Text format_braces(Evaluator& e, const Text& format, const Args& args) {
  Text out;
  Copier copier(format);
  const std::string_view s = format.bytes;
  std::size_t next = 0;
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t brace = std::min(s.find_first_of("{}", at), s.size());
    copier.copy(out, at, brace);
    at = brace;
    if (at >= s.size()) break;
    if (at + 1 < s.size() && s[at + 1] == s[at]) {
      out.append(s.substr(at, 1), {});
      at += 2;
      continue;
    }
    const std::size_t close = s.find('}', at);
    if (s[at] == '}' || close == s.npos)
      e.refuse("a single brace in a format string; write it twice");
    const std::string_view field = s.substr(at + 1, close - at - 1);
    if (field.find_first_of(".[:!{") != field.npos)
      e.refuse(fmt::format("the format field '{{{}}}' is not supported", field));
    const bool numbered = !field.empty() && field.find_first_not_of("0123456789") == field.npos;
    std::size_t digits = 0;
    const Value* v = field.empty() || numbered ? nullptr : args.get(~std::size_t{0}, field);
    const std::size_t index = field.empty() ? next++
                              : numbered    ? static_cast<std::size_t>(take_number(field, digits))
                                            : args.items.size();
    if (!v && index < args.items.size()) v = &args.items[index];
    if (!v) e.refuse(fmt::format("the format field '{{{}}}' has no value", field));
    append_str(out, *v);
    e.charge(8);
    at = close + 1;
  }
  return out;
}

}  // namespace supersonic::text::jinja
