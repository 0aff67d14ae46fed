// Methods of strings, dicts, lists and loops, and the global functions: all that a template can
// call besides its macros.
#include <algorithm>
#include <ctime>

#include "core/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_text.h"
#include "text/jinja_unicode.h"

namespace supersonic::text::jinja {
namespace {

using Method = Value (*)(Evaluator&, const Value&, const Args&);

const Value& need(Evaluator& e, const Args& args, std::size_t i, std::string_view name) {
  const Value* v = args.get(i, name);
  if (!v) e.refuse(fmt::format("the argument '{}' is missing", name));
  return *v;
}
const Value& need_text(Evaluator& e, const Args& args, std::size_t i, std::string_view name) {
  const Value& v = need(e, args, i, name);
  if (!v.is(Kind::string))
    e.refuse(fmt::format("the argument '{}' must be a string, got a {}", name, type_name(v)));
  return v;
}

Value pieces(Evaluator& e, const Value& self, const std::vector<Trimmed>& ranges) {
  List* list = e.heap().list();
  for (const Trimmed& r : ranges) {
    Text piece;
    piece.append(self.text(), r.begin, r.end);
    e.charge(self.text().runs.size());
    list->items.push_back(e.make_string(std::move(piece)));
  }
  e.charge(ranges.size() * 2 + self.bytes().size() / 32);
  return Value::list(list);
}

template <bool right>
Value split(Evaluator& e, const Value& self, const Args& args) {
  const Value *separator = args.get(0, "sep"), *limit = args.get(1, "maxsplit");
  const std::int64_t n = limit && limit->is(Kind::integer) ? limit->as_int() : -1;
  if (!separator || separator->is(Kind::none)) {
    return pieces(e, self,
                  right ? split_space_right(self.bytes(), n) : split_space(self.bytes(), n));
  }
  const std::string& s = need_text(e, args, 0, "sep").bytes();
  if (s.empty()) e.refuse("split: the separator is empty");
  return pieces(e, self, right ? split_on_right(self.bytes(), s, n) : split_on(self.bytes(), s, n));
}

template <bool left, bool right>
Value strip_ends(Evaluator& e, const Value& self, const Args& args) {
  const Value* chars = args.get(0, "chars");
  const bool given = chars && !chars->is(Kind::none);
  return e.make_string(
      strip(self.text(), given ? &need_text(e, args, 0, "chars").bytes() : nullptr, left, right));
}

template <bool end>
Value has_affix(Evaluator& e, const Value& self, const Args& args) {
  const Value& what = need(e, args, 0, "prefix");
  std::vector<Value> holder;
  std::span<const Value> any = {&what, 1};
  if (what.is(Kind::list)) any = e.iterate(what, holder);
  for (const Value& v : any) {
    if (!v.is(Kind::string))
      e.refuse("startswith and endswith need a string or a tuple of strings");
    if (end ? self.bytes().ends_with(v.bytes()) : self.bytes().starts_with(v.bytes()))
      return Value::boolean(true);
  }
  return Value::boolean(false);
}

template <bool right>
Value find_text(Evaluator& e, const Value& self, const Args& args) {
  const std::string& what = need_text(e, args, 0, "sub").bytes();
  const std::size_t hit = right ? self.bytes().rfind(what) : self.bytes().find(what);
  e.charge(self.bytes().size() / 32);
  if (hit == std::string::npos) return Value::integer(-1);
  return Value::integer(
      static_cast<std::int64_t>(count_code_points(std::string_view(self.bytes()).substr(0, hit))));
}

Value count_text(Evaluator& e, const Value& self, const Args& args) {
  const std::string& what = need_text(e, args, 0, "sub").bytes();
  e.charge(self.bytes().size() / 16);
  if (what.empty())
    return Value::integer(static_cast<std::int64_t>(count_code_points(self.bytes())) + 1);
  std::int64_t n = 0;
  for (std::size_t at = self.bytes().find(what); at != std::string::npos;
       at = self.bytes().find(what, at + what.size()))
    ++n;
  return Value::integer(n);
}

Value replace(Evaluator& e, const Value& self, const Args& args) {
  need_text(e, args, 0, "old");
  need_text(e, args, 1, "new");
  return e.apply_filter("replace", self, args);
}

Value join(Evaluator& e, const Value& self, const Args& args) {
  std::vector<Value> holder;
  Text out;
  bool first = true;
  for (const Value& item : e.iterate(need(e, args, 0, "iterable"), holder)) {
    if (!item.is(Kind::string))
      e.refuse(fmt::format("join needs strings, got a {}", type_name(item)));
    if (!first) out.append(self.text());
    first = false;
    out.append(item.text());
    e.charge((item.bytes().size() + self.bytes().size()) / 32);
  }
  return e.make_string(std::move(out));
}

template <Case how>
Value with_case(Evaluator& e, const Value& self, const Args&) {
  return e.make_string(map_case(self.text(), how));
}

Value lines(Evaluator& e, const Value& self, const Args& args) {
  auto ranges = split_lines(self.bytes());
  const Value* keep = args.get(0, "keepends");
  if (keep && truthy(*keep)) {
    for (std::size_t i = 0; i < ranges.size(); ++i)
      ranges[i].end = i + 1 < ranges.size() ? ranges[i + 1].begin : self.bytes().size();
  }
  return pieces(e, self, ranges);
}

template <bool suffix>
Value remove_affix(Evaluator& e, const Value& self, const Args& args) {
  const std::string& what = need_text(e, args, 0, "prefix").bytes();
  const std::size_t size = self.bytes().size();
  const bool hit = suffix ? self.bytes().ends_with(what) : self.bytes().starts_with(what);
  if (!hit) return self;
  Text out;
  out.append(self.text(), suffix ? 0 : what.size(), suffix ? size - what.size() : size);
  return e.make_string(std::move(out));
}

template <class Predicate>
Value all_characters(const Value& self, Predicate holds) {
  for (std::size_t at = 0; at < self.bytes().size();)
    if (!holds(next_code_point(self.bytes(), at))) return Value::boolean(false);
  return Value::boolean(!self.bytes().empty());
}

constexpr std::pair<std::string_view, Method> kStringMethods[] = {
    {"capitalize", with_case<Case::capitalize>},
    {"count", count_text},
    {"endswith", has_affix<true>},
    {"find", find_text<false>},
    {"format", [](Evaluator& e, const Value& v,
                  const Args& a) { return e.make_string(format_braces(e, v.text(), a)); }},
    {"isdigit",
     [](Evaluator&, const Value& v, const Args&) {
       return all_characters(v, [](char32_t c) { return c >= '0' && c <= '9'; });
     }},
    {"islower", [](Evaluator& e, const Value& v,
                   const Args&) { return Value::boolean(e.apply_test("lower", v, {})); }},
    {"isspace",
     [](Evaluator&, const Value& v, const Args&) { return all_characters(v, is_space); }},
    {"isupper", [](Evaluator& e, const Value& v,
                   const Args&) { return Value::boolean(e.apply_test("upper", v, {})); }},
    {"join", join},
    {"lower", with_case<Case::lower>},
    {"lstrip", strip_ends<true, false>},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"replace", replace},
    {"rfind", find_text<true>},
    {"rsplit", split<true>},
    {"rstrip", strip_ends<false, true>},
    {"split", split<false>},
    {"splitlines", lines},
    {"startswith", has_affix<false>},
    {"strip", strip_ends<true, true>},
    {"title", with_case<Case::title>},
    {"upper", with_case<Case::upper>},
};

template <bool keys, bool values>
Value view(Evaluator& e, const Value& self, const Args&) {
  List* list = e.heap().list(Flavor::view);
  for (const auto& [key, value] : self.as_dict().items) {
    if (keys && values) {
      List* pair = e.heap().list(Flavor::tuple);
      pair->items = {key, value};
      list->items.push_back(Value::list(pair));
    } else {
      list->items.push_back(keys ? key : value);
    }
  }
  e.charge(list->items.size() * 3 + 2);
  return Value::list(list);
}

Value get(Evaluator& e, const Value& self, const Args& args) {
  const Value& key = need(e, args, 0, "key");
  if (const Value* v = self.as_dict().find(key)) return *v;
  const Value* fallback = args.get(1, "default");
  return fallback ? *fallback : Value::none();
}

Value copy_dict(Evaluator& e, const Value& self, const Args&) {
  Dict* dict = e.heap().dict();
  e.charge(self.as_dict().items.size() * 2 + 2);
  for (const auto& [key, value] : self.as_dict().items) dict->set(key, value);
  return Value::dict(dict);
}

constexpr std::pair<std::string_view, Method> kDictMethods[] = {
    {"copy", copy_dict},           {"get", get},
    {"items", view<true, true>},   {"keys", view<true, false>},
    {"values", view<false, true>},
};

List& changeable(Evaluator& e, const Value& self) {
  List& list = self.as_list();
  if (list.frozen || list.flavor != Flavor::list)
    e.refuse("a list that came with the data cannot be changed; copy it with |list");
  return list;
}

Value append(Evaluator& e, const Value& self, const Args& args) {
  changeable(e, self).items.push_back(need(e, args, 0, "object"));
  e.charge(2);
  return Value::none();
}

Value pop(Evaluator& e, const Value& self, const Args& args) {
  auto& items = changeable(e, self).items;
  const Value* at = args.get(0, "index");
  const auto size = static_cast<std::int64_t>(items.size());
  std::int64_t i = at && at->is(Kind::integer) ? at->as_int() : -1;
  if (i < 0) i += size;
  if (i < 0 || i >= size) e.refuse("pop from an empty list, or an index outside of it");
  Value out = items[static_cast<std::size_t>(i)];
  items.erase(items.begin() + i);
  e.charge(items.size() / 8);
  return out;
}

Value index_of(Evaluator& e, const Value& self, const Args& args) {
  const Value& what = need(e, args, 0, "value");
  const auto& items = self.as_list().items;
  e.charge(items.size());
  for (std::size_t i = 0; i < items.size(); ++i)
    if (equal(items[i], what)) return Value::integer(static_cast<std::int64_t>(i));
  e.refuse("index: the value is not in the list");
}

Value count_items(Evaluator& e, const Value& self, const Args& args) {
  const Value& what = need(e, args, 0, "value");
  const auto& items = self.as_list().items;
  e.charge(items.size());
  return Value::integer(
      std::count_if(items.begin(), items.end(), [&](const Value& v) { return equal(v, what); }));
}

constexpr std::pair<std::string_view, Method> kListMethods[] = {
    {"append", append}, {"count", count_items}, {"index", index_of}, {"pop", pop}};

Value cycle(Evaluator& e, const Value& self, const Args& args) {
  if (args.items.empty()) e.refuse("loop.cycle needs values");
  return args.items[self.as_loop().index % args.items.size()];
}

Value changed(Evaluator&, const Value& self, const Args& args) {
  Loop& loop = self.as_loop();
  bool same = loop.has_changed && loop.changed.size() == args.items.size();
  for (std::size_t i = 0; same && i < args.items.size(); ++i)
    same = equal(loop.changed[i], args.items[i]);
  loop.has_changed = true;
  loop.changed = args.items;
  return Value::boolean(!same);
}

constexpr std::pair<std::string_view, Method> kLoopMethods[] = {{"changed", changed},
                                                                {"cycle", cycle}};

std::span<const std::pair<std::string_view, Method>> methods_of(const Value& self) {
  switch (self.kind()) {
    case Kind::string:
      return kStringMethods;
    case Kind::dict:
      return kDictMethods;
    case Kind::loop:
      return kLoopMethods;
    case Kind::list:
      return kListMethods;
    default:
      return {};
  }
}

Method find(const Value& self, std::string_view name) {
  for (const auto& [have, method] : methods_of(self))
    if (have == name) return method;
  return nullptr;
}

// ---- global functions

Value range(Evaluator& e, const Args& args) {
  std::int64_t bounds[3] = {0, 0, 1};
  if (args.items.empty() || args.items.size() > 3) e.refuse("range takes one to three integers");
  for (std::size_t i = 0; i < args.items.size(); ++i) {
    if (!args.items[i].is(Kind::integer) && !args.items[i].is(Kind::boolean))
      e.refuse("range takes integers");
    bounds[args.items.size() == 1 ? 1 : i] = args.items[i].as_int();
  }
  const auto [from, to, by] = bounds;
  if (by == 0) e.refuse("range: the step is zero");
  List* list = e.heap().list(Flavor::range);
  for (std::int64_t i = from; by > 0 ? i < to : i > to;) {
    if (list->items.size() >= 100'000) e.refuse("range: over 100000 numbers");
    e.charge(1);
    list->items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  return Value::list(list);
}

Value make_namespace(Evaluator& e, const Args& args) {
  Namespace* space = e.heap().space();
  const auto put = [&](const std::string& name, const Value& value) {
    if (name.starts_with("_"))
      e.refuse(fmt::format("the attribute '{}' may not start with an underscore", name));
    for (auto& [have, old] : space->items)
      if (have == name) return void(old = value);
    space->items.emplace_back(name, value);
  };
  for (const Value& v : args.items) {
    if (!v.is(Kind::dict)) e.refuse("namespace takes keyword arguments or a dict");
    for (const auto& [key, value] : v.as_dict().items)
      if (key.is(Kind::string)) put(key.bytes(), value);
  }
  for (const auto& [name, value] : args.named) put(name, value);
  e.charge(space->items.size() + 2);
  return Value::space(space);
}

Value make_dict(Evaluator& e, const Args& args) {
  Dict* dict = e.heap().dict();
  for (const Value& v : args.items) {
    if (v.is(Kind::dict)) {
      for (const auto& [key, value] : v.as_dict().items) dict->set(key, value);
      continue;
    }
    std::vector<Value> holder, pair;
    for (const Value& item : e.iterate(v, holder)) {
      pair.clear();
      if (e.iterate(item, pair).size() != 2)
        e.refuse("dict takes a dict, pairs, or keyword arguments");
      dict->set(pair[0], pair[1]);
    }
  }
  for (const auto& [name, value] : args.named) dict->set(Value::string(name), value);
  e.charge(dict->items.size() * 2 + 2);
  return Value::dict(dict);
}

Value strftime_now(Evaluator& e, const Args& args) {
  const std::string& format = need_text(e, args, 0, "format").bytes();
  if (format.size() > 200) e.refuse("strftime_now: the format is over 200 bytes");
  if (format.empty()) return Value::string("");
  const std::time_t now = e.now();
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[4096];
  return Value::string({buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &local)});
}

[[noreturn]] Value raise(Evaluator& e, const Args& args) {
  e.refuse(args.items.empty() ? "the template refuses this conversation"
                              : e.to_string(args.items[0]).bytes());
}

constexpr std::string_view kGlobals[] = {"dict", "namespace", "raise_exception", "range",
                                         "strftime_now"};

}  // namespace

bool has_method(const Value& self, std::string_view name) { return find(self, name) != nullptr; }
bool is_global(std::string_view name) {
  return std::find(std::begin(kGlobals), std::end(kGlobals), name) != std::end(kGlobals);
}

Value Evaluator::call_method(const Value& self, const std::string& name, const Args& args) {
  const Method method = find(self, name);
  if (!method) refuse(fmt::format("a {} has no method '{}'", type_name(self), name));
  charge(1);
  return method(*this, self, args);
}

Value Evaluator::call_global(const std::string& name, const Args& args) {
  charge(1);
  if (name == "range") return range(*this, args);
  if (name == "namespace") return make_namespace(*this, args);
  if (name == "dict") return make_dict(*this, args);
  if (name == "strftime_now") return strftime_now(*this, args);
  raise(*this, args);
}

}  // namespace supersonic::text::jinja
