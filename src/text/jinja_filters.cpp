// Filters: a sorted table of functions (evaluator, subject, arguments) -> value.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "core/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_json.h"
#include "text/jinja_text.h"
#include "text/jinja_unicode.h"

namespace supersonic::text::jinja {
namespace {

using Filter = Value (*)(Evaluator&, const Value&, const Args&);

bool flag(const Args& args, std::size_t i, std::string_view name, bool fallback = false) {
  const Value* v = args.get(i, name);
  return v ? truthy(*v) : fallback;
}

const std::string& need_string(Evaluator& e, const Value* v, std::string_view what) {
  if (!v || !v->is(Kind::string)) e.refuse(fmt::format("{} must be a string", what));
  return v->bytes();
}

Value new_list(Evaluator& e, std::vector<Value> items, Flavor flavor = Flavor::list) {
  List* list = e.heap().list(flavor);
  list->items = std::move(items);
  e.charge(list->items.size() + 2);
  return Value::list(list);
}

std::vector<Value> items_of(Evaluator& e, const Value& v) {
  std::vector<Value> holder;
  const auto span = e.iterate(v, holder);
  if (holder.empty()) holder.assign(span.begin(), span.end());
  return holder;
}

Value length(Evaluator& e, const Value& v, const Args&) {
  switch (v.kind()) {
    case Kind::undefined:
      return Value::integer(0);
    case Kind::string:
      return Value::integer(static_cast<std::int64_t>(count_code_points(v.bytes())));
    case Kind::dict:
      return Value::integer(static_cast<std::int64_t>(v.as_dict().items.size()));
    case Kind::list:
      if (v.as_list().sized())
        return Value::integer(static_cast<std::int64_t>(v.as_list().items.size()));
      [[fallthrough]];
    default:
      e.refuse(fmt::format("a {} has no length", type_name(v)));
  }
}

Value default_value(Evaluator&, const Value& v, const Args& args) {
  const bool use = v.is(Kind::undefined) || (flag(args, 1, "boolean") && !truthy(v));
  if (!use) return v;
  const Value* other = args.get(0, "default_value");
  return other ? *other : Value::string("");
}

// a.b.0 → the value found by walking the parts
Value walk(Evaluator& e, Value v, const Value& path, const Value* fallback) {
  if (!path.is(Kind::string)) {
    v = e.get_item(v, path);
    return v.is(Kind::undefined) && fallback ? *fallback : v;
  }
  const std::string& s = path.bytes();
  for (std::size_t at = 0; at <= s.size();) {
    const std::size_t dot = std::min(s.find('.', at), s.size());
    const std::string part = s.substr(at, dot - at);
    std::int64_t index = 0;
    const auto [ptr, ec] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = ec == std::errc() && ptr == part.data() + part.size() && index >= 0;
    v = e.get_item(v, number ? Value::integer(index) : Value::string(part));
    if (v.is(Kind::undefined) && fallback) v = *fallback;
    at = dot + 1;
  }
  return v;
}

Value map(Evaluator& e, const Value& v, const Args& args) {
  std::vector<Value> items;
  if (truthy(v)) items = items_of(e, v);  // none, false and 0 count as empty
  if (const Value* attribute = args.get(~std::size_t{0}, "attribute")) {
    const Value* fallback = args.get(~std::size_t{0}, "default");
    for (Value& item : items) item = walk(e, item, *attribute, fallback);
  } else {
    if (args.items.empty()) e.refuse("map needs a filter's name or attribute=");
    const std::string name = need_string(e, &args.items[0], "map's filter");
    Args rest{{args.items.begin() + 1, args.items.end()}, args.named};
    for (Value& item : items) item = e.apply_filter(name, item, rest);
  }
  return new_list(e, std::move(items), Flavor::generator);
}

// select, reject, selectattr, rejectattr
Value choose(Evaluator& e, const Value& v, const Args& args, bool by_attribute, bool want) {
  std::vector<Value> out;
  if (by_attribute && args.items.empty()) e.refuse("an attribute's name is missing");
  const std::size_t first = by_attribute ? 1 : 0;
  const bool tested = args.items.size() > first;
  const std::string name = tested ? need_string(e, &args.items[first], "a test's name") : "";
  Args rest;
  if (tested)
    rest = {{args.items.begin() + static_cast<std::ptrdiff_t>(first) + 1, args.items.end()},
            args.named};
  if (!truthy(v)) return new_list(e, {}, Flavor::generator);  // none, false and 0 count as empty
  for (const Value& item : items_of(e, v)) {
    e.charge(1);
    const Value subject = by_attribute ? walk(e, item, args.items[0], nullptr) : item;
    if ((tested ? e.apply_test(name, subject, rest) : truthy(subject)) == want) out.push_back(item);
  }
  return new_list(e, std::move(out), Flavor::generator);
}

Value lowered(const Value& v) {
  return v.is(Kind::string) ? Value::string(map_case(v.text(), Case::lower)) : v;
}

void stable_sort_by(Evaluator& e, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  e.charge(keyed.size() * 16);
  const auto less = [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; };
  // reverse keeps equal elements in their order
  if (reverse) {
    std::stable_sort(keyed.begin(), keyed.end(),
                     [](const auto& a, const auto& b) { return compare(b.first, a.first) < 0; });
  } else {
    std::stable_sort(keyed.begin(), keyed.end(), less);
  }
}

Value sort_key(Evaluator& e, const Value& item, const Value* attribute, bool case_sensitive) {
  Value key = item;
  if (attribute && attribute->is(Kind::string) &&
      attribute->bytes().find(',') != std::string::npos) {
    std::vector<Value> parts;
    const std::string& s = attribute->bytes();
    for (std::size_t at = 0; at <= s.size();) {
      const std::size_t comma = std::min(s.find(',', at), s.size());
      Value part = walk(e, item, Value::string(s.substr(at, comma - at)), nullptr);
      parts.push_back(case_sensitive ? part : lowered(part));
      at = comma + 1;
    }
    return new_list(e, std::move(parts));
  }
  if (attribute && !attribute->is(Kind::none)) key = walk(e, item, *attribute, nullptr);
  if (key.is(Kind::undefined)) e.refuse_undefined(key);
  return case_sensitive ? key : lowered(key);
}

Value sort(Evaluator& e, const Value& v, const Args& args) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items_of(e, v))
    keyed.emplace_back(sort_key(e, item, args.get(2, "attribute"), flag(args, 1, "case_sensitive")),
                       item);
  stable_sort_by(e, keyed, flag(args, 0, "reverse"));
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return new_list(e, std::move(out));
}

Value pair(Evaluator& e, const Value& a, const Value& b) {
  return new_list(e, {a, b}, Flavor::tuple);
}

Value dictsort(Evaluator& e, const Value& v, const Args& args) {
  if (!v.is(Kind::dict)) e.refuse(fmt::format("dictsort needs a dict, got a {}", type_name(v)));
  const Value* by = args.get(1, "by");
  const bool by_value = by && need_string(e, by, "dictsort's by") == "value";
  const bool sensitive = flag(args, 0, "case_sensitive");
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : v.as_dict().items) {
    const Value& k = by_value ? value : key;
    keyed.emplace_back(sensitive ? k : lowered(k), pair(e, key, value));
  }
  stable_sort_by(e, keyed, flag(args, 2, "reverse"));
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return new_list(e, std::move(out));
}

Value unique(Evaluator& e, const Value& v, const Args& args) {
  std::vector<Value> out, seen;
  const Value* attribute = args.get(1, "attribute");
  const bool sensitive = flag(args, 0, "case_sensitive");
  for (const Value& item : items_of(e, v)) {
    Value key = attribute ? walk(e, item, *attribute, nullptr) : item;
    if (!sensitive) key = lowered(key);
    e.charge(seen.size());
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return equal(s, key); }))
      continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return new_list(e, std::move(out), Flavor::generator);
}

Value extreme(Evaluator& e, const Value& v, const Args& args, bool max) {
  Value best, best_key;
  for (const Value& item : items_of(e, v)) {
    const Value key = sort_key(e, item, args.get(1, "attribute"), flag(args, 0, "case_sensitive"));
    if (!best_key.is(Kind::undefined) && (compare(key, best_key) > 0) != max) continue;
    if (!best_key.is(Kind::undefined) && compare(key, best_key) == 0) continue;
    best = item;
    best_key = key;
  }
  return best;
}

Value join(Evaluator& e, const Value& v, const Args& args) {
  const Value* d = args.get(0, "d");
  const Value* attribute = args.get(1, "attribute");
  const Value glue = d ? e.to_string(*d) : Value::string("");
  Text out;
  bool first = true;
  for (const Value& item : items_of(e, v)) {
    if (!first) out.append(glue.text());
    first = false;
    const std::size_t before = out.bytes.size();
    append_str(out, attribute ? walk(e, item, *attribute, nullptr) : item);
    e.charge((out.bytes.size() - before + glue.bytes().size()) / 32 + 1);
  }
  return e.make_string(std::move(out));
}

Value items(Evaluator& e, const Value& v, const Args&) {
  if (v.is(Kind::undefined)) return new_list(e, {}, Flavor::generator);
  if (!v.is(Kind::dict)) e.refuse(fmt::format("items needs a dict, got a {}", type_name(v)));
  std::vector<Value> out;
  for (const auto& [key, value] : v.as_dict().items) out.push_back(pair(e, key, value));
  return new_list(e, std::move(out), Flavor::generator);
}

Value first_item(Evaluator& e, const Value& v, const Args&) {
  const auto all = items_of(e, v);
  return all.empty() ? Value() : all.front();
}

Value last_item(Evaluator& e, const Value& v, const Args&) {
  if (v.is(Kind::list) && !v.as_list().sized()) e.refuse("last needs a list; apply |list first");
  const auto all = items_of(e, v);
  return all.empty() ? Value() : all.back();
}

Value reverse(Evaluator& e, const Value& v, const Args&) {
  auto all = items_of(e, v);
  std::reverse(all.begin(), all.end());
  if (!v.is(Kind::string)) return new_list(e, std::move(all), Flavor::generator);
  Text out;
  for (const Value& c : all) out.append(c.text());
  return e.make_string(std::move(out));
}

Value sum(Evaluator& e, const Value& v, const Args& args) {
  const Value* attribute = args.get(0, "attribute");
  const Value* start = args.get(1, "start");
  Value total = start ? *start : Value::integer(0);
  for (const Value& item : items_of(e, v))
    total = e.binary("+", total, attribute ? walk(e, item, *attribute, nullptr) : item);
  return total;
}

Value batch(Evaluator& e, const Value& v, const Args& args) {
  const Value* n = args.get(0, "linecount");
  if (!n || !n->is(Kind::integer) || n->as_int() < 1) e.refuse("batch needs a positive size");
  const auto size = static_cast<std::size_t>(n->as_int());
  const Value* fill = args.get(1, "fill_with");
  std::vector<Value> out, row;
  for (const Value& item : items_of(e, v)) {
    if (row.size() == size) out.push_back(new_list(e, std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty() && fill && !fill->is(Kind::none)) {
    e.charge(size);
    row.resize(std::max(row.size(), size), *fill);
  }
  if (!row.empty()) out.push_back(new_list(e, std::move(row)));
  return new_list(e, std::move(out), Flavor::generator);
}

Value absolute(Evaluator& e, const Value& v, const Args&) {
  if (!v.is_number()) e.refuse(fmt::format("abs needs a number, got a {}", type_name(v)));
  if (v.is(Kind::real)) return Value::real(std::fabs(v.as_real()), v.mark());
  return v.as_int() < 0 ? e.binary("neg", v, Value::none()) : Value::integer(v.as_int(), v.mark());
}

Mark origin(const Value& v) {
  if (!v.is(Kind::string)) return v.mark();
  Mark mark;
  for (const Run& run : v.text().runs)
    if (run.mark.source != kFromTemplate) mark = run.mark;
  mark.generation = false;
  return mark;
}

bool parse_real(std::string_view s, double& out) {
  const Trimmed t = trim_space(s);
  s = s.substr(t.begin, t.end - t.begin);
  if (s.starts_with("+")) s.remove_prefix(1);
  const auto [ptr, ec] = std::from_chars(s.data(), s.data() + s.size(), out);
  return ec == std::errc() && ptr == s.data() + s.size() && !s.empty();
}

Value to_int(Evaluator&, const Value& v, const Args& args) {
  const Value* other = args.get(0, "default");
  const Value fallback = other ? *other : Value::integer(0);
  double d = 0;
  if (v.is(Kind::string)) {
    const Trimmed t = trim_space(v.bytes());
    std::string_view s = std::string_view(v.bytes()).substr(t.begin, t.end - t.begin);
    if (s.starts_with("+")) s.remove_prefix(1);
    const Value* base = args.get(1, "base");
    const int radix = base && base->is(Kind::integer) && base->as_int() >= 2 && base->as_int() <= 36
                          ? static_cast<int>(base->as_int())
                          : 10;
    if (radix == 16 && (s.starts_with("0x") || s.starts_with("0X"))) s.remove_prefix(2);
    std::int64_t i = 0;
    const auto [ptr, ec] = std::from_chars(s.data(), s.data() + s.size(), i, radix);
    if (ec == std::errc() && ptr == s.data() + s.size() && !s.empty())
      return Value::integer(i, origin(v));
    if (!parse_real(v.bytes(), d)) return fallback;
  } else if (v.is_number()) {
    if (!v.is(Kind::real)) return Value::integer(v.as_int(), v.mark());
    d = v.as_real();
  } else {
    return fallback;
  }
  if (!(std::fabs(d) < 9.2e18)) return fallback;
  return Value::integer(static_cast<std::int64_t>(d), origin(v));
}

Value to_real(Evaluator&, const Value& v, const Args& args) {
  const Value* other = args.get(0, "default");
  double d = 0;
  if (v.is_number()) return Value::real(v.as_real(), v.mark());
  if (v.is(Kind::string) && parse_real(v.bytes(), d)) return Value::real(d, origin(v));
  return other ? *other : Value::real(0);
}

Value round_number(Evaluator& e, const Value& v, const Args& args) {
  if (!v.is_number()) e.refuse(fmt::format("round needs a number, got a {}", type_name(v)));
  const Value* p = args.get(0, "precision");
  const Value* m = args.get(1, "method");
  const int precision = p && p->is(Kind::integer)
                            ? static_cast<int>(std::clamp<std::int64_t>(p->as_int(), -15, 15))
                            : 0;
  const std::string method = m ? need_string(e, m, "round's method") : "common";
  const double x = v.as_real(), scale = std::pow(10.0, precision);
  if (method == "ceil") return Value::real(std::ceil(x * scale) / scale, v.mark());
  if (method == "floor") return Value::real(std::floor(x * scale) / scale, v.mark());
  if (method != "common") e.refuse("round's method must be common, ceil or floor");
  if (!v.is(Kind::real)) return v;
  if (precision < 0) return Value::real(std::nearbyint(x * scale) / scale, v.mark());
  double out = 0;  // decimal rounding of the exact value, ties to even
  const std::string s = fmt::format("{:.{}f}", x, precision);
  std::from_chars(s.data(), s.data() + s.size(), out);
  return Value::real(out, v.mark());
}

Value to_json(Evaluator& e, const Value& v, const Args& args) {
  JsonLayout layout;
  layout.ensure_ascii = flag(args, 0, "ensure_ascii");
  layout.sort_keys = flag(args, 3, "sort_keys");
  const Value* indent = args.get(1, "indent");
  if (indent && !indent->is(Kind::none)) {
    layout.has_indent = true;
    layout.item_separator.pop_back();  // ",": the line break stands for the space
    if (indent->is(Kind::string)) {
      layout.indent = indent->bytes();
    } else if (indent->is_number()) {
      layout.indent = std::string(
          static_cast<std::size_t>(std::clamp<std::int64_t>(indent->as_int(), 0, 1000)), ' ');
    }
  }
  const Value* separators = args.get(2, "separators");
  if (separators && !separators->is(Kind::none)) {
    const auto both = items_of(e, *separators);
    if (both.size() != 2) e.refuse("tojson: separators needs two strings");
    layout.item_separator = need_string(e, &both[0], "a separator");
    layout.key_separator = need_string(e, &both[1], "a separator");
  }
  if (v.is(Kind::undefined)) e.refuse_undefined(v);
  Text out;
  append_json(out, v, layout);
  e.charge(out.bytes.size() / 8);
  return e.make_string(std::move(out));
}

Value from_json(Evaluator& e, const Value& v, const Args&) {
  const std::string& s = need_string(e, &v, "from_json's subject");
  e.charge(s.size());
  return parse_json(s, e.heap(), {.mark = origin(v)});
}

Value safe(Evaluator& e, const Value& v, const Args&) {
  Text text = e.to_string(v).text();
  text.safe = true;
  return e.make_string(std::move(text));
}

Value escape(Evaluator& e, const Value& v, const Args&) {
  Value s = e.to_string(v);
  if (s.text().safe) return s;
  for (auto [from, to] :
       {std::pair{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}}) {
    Text to_text;
    to_text.append(to, origin(s));
    s = e.make_string(replace_all(s.text(), from, to_text, -1));
  }
  return s;
}

Value indent(Evaluator& e, const Value& v, const Args& args) {
  const Value s = e.to_string(v);
  const Value* width = args.get(0, "width");
  const Text pad =
      width && width->is(Kind::string)
          ? width->text()
          : Value::string(std::string(static_cast<std::size_t>(
                                          width && width->is_number()
                                              ? std::clamp<std::int64_t>(width->as_int(), 0, 1000)
                                              : 4),
                                      ' '))
                .text();
  const bool first = flag(args, 1, "first"), blank = flag(args, 2, "blank");
  Text out;
  if (first) out.append(pad);
  std::size_t n = 0;
  Text with_break = s.text();
  with_break.append("\n", {});
  for (const Trimmed& line : split_lines(with_break.bytes)) {
    e.charge(2 + pad.bytes.size() / 32);
    if (n > 0) out.append("\n", {});
    if (n > 0 && (blank || line.end > line.begin)) out.append(pad);
    out.append(with_break, line.begin, line.end);
    ++n;
  }
  return e.make_string(std::move(out));
}

Value replace(Evaluator& e, const Value& v, const Args& args) {
  const Value *from = args.get(0, "old"), *to = args.get(1, "new"), *count = args.get(2, "count");
  if (!from || !to) e.refuse("replace needs the old and the new text");
  const Value subject = e.to_string(v), with = e.to_string(*to), what = e.to_string(*from);
  e.charge(subject.bytes().size() / 8 * (1 + with.bytes().size() / 16));
  const std::int64_t n = count && count->is(Kind::integer) ? count->as_int() : -1;
  return e.make_string(replace_all(subject.text(), what.bytes(), with.text(), n));
}

Value trim(Evaluator& e, const Value& v, const Args& args) {
  const Value* chars = args.get(0, "chars");
  const Value s = e.to_string(v);
  const bool given = chars && !chars->is(Kind::none);
  return e.make_string(
      strip(s.text(), given ? &need_string(e, chars, "trim's characters") : nullptr, true, true));
}

template <Case how>
Value with_case(Evaluator& e, const Value& v, const Args&) {
  return e.make_string(map_case(e.to_string(v).text(), how));
}

Value attribute(Evaluator& e, const Value& v, const Args& args) {
  return e.get_attribute(v, need_string(e, args.get(0, "name"), "attr's name"));
}
Value format(Evaluator& e, const Value& v, const Args& args) {
  return e.make_string(format_percent(e, e.to_string(v).text(), args));
}
Value list(Evaluator& e, const Value& v, const Args&) { return new_list(e, items_of(e, v)); }
Value string(Evaluator& e, const Value& v, const Args&) { return e.to_string(v); }

Value wordcount(Evaluator& e, const Value& v, const Args&) {
  const Value s = e.to_string(v);
  return Value::integer(static_cast<std::int64_t>(split_space(s.bytes(), -1).size()));
}

constexpr std::pair<std::string_view, Filter> kFilters[] = {
    {"abs", absolute},
    {"attr", attribute},
    {"batch", batch},
    {"capitalize", with_case<Case::capitalize>},
    {"count", length},
    {"d", default_value},
    {"default", default_value},
    {"dictsort", dictsort},
    {"e", escape},
    {"escape", escape},
    {"first", first_item},
    {"float", to_real},
    {"format", format},
    {"from_json", from_json},
    {"indent", indent},
    {"int", to_int},
    {"items", items},
    {"join", join},
    {"last", last_item},
    {"length", length},
    {"list", list},
    {"lower", with_case<Case::lower>},
    {"map", map},
    {"max", [](Evaluator& e, const Value& v, const Args& a) { return extreme(e, v, a, true); }},
    {"min", [](Evaluator& e, const Value& v, const Args& a) { return extreme(e, v, a, false); }},
    {"reject",
     [](Evaluator& e, const Value& v, const Args& a) { return choose(e, v, a, false, false); }},
    {"rejectattr",
     [](Evaluator& e, const Value& v, const Args& a) { return choose(e, v, a, true, false); }},
    {"replace", replace},
    {"reverse", reverse},
    {"round", round_number},
    {"safe", safe},
    {"select",
     [](Evaluator& e, const Value& v, const Args& a) { return choose(e, v, a, false, true); }},
    {"selectattr",
     [](Evaluator& e, const Value& v, const Args& a) { return choose(e, v, a, true, true); }},
    {"sort", sort},
    {"string", string},
    {"sum", sum},
    {"title", with_case<Case::title>},
    {"tojson", to_json},
    {"trim", trim},
    {"unique", unique},
    {"upper", with_case<Case::upper>},
    {"wordcount", wordcount},
};

Filter find(std::string_view name) {
  for (const auto& [have, filter] : kFilters)
    if (have == name) return filter;
  return nullptr;
}

}  // namespace

bool is_filter(std::string_view name) { return find(name) != nullptr; }

Value Evaluator::apply_filter(const std::string& name, const Value& subject, const Args& args) {
  const Filter filter = find(name);
  if (!filter) refuse(fmt::format("there is no filter '{}'", name));
  charge(1);
  return filter(*this, subject, args);
}

}  // namespace supersonic::text::jinja
