// Tests: what may follow `is`.
#include <algorithm>

#include "core/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_unicode.h"

namespace supersonic::text::jinja {
namespace {

using Test = bool (*)(Evaluator&, const Value&, const Args&);

const Value& operand(Evaluator& e, const Args& args) {
  if (args.items.empty()) e.refuse("the test needs a value to compare with");
  return args.items[0];
}

std::int64_t whole(Evaluator& e, const Value& v) {
  if (!v.is(Kind::integer) && !v.is(Kind::boolean))
    e.refuse(fmt::format("the test needs an integer, got a {}", type_name(v)));
  return v.as_int();
}

int order(Evaluator& e, const Value& v, const Args& args) {
  if (v.is(Kind::undefined)) e.refuse_undefined(v);
  return compare(v, operand(e, args));
}

bool is_iterable(const Value& v) {
  return v.is(Kind::string) || v.is(Kind::list) || v.is(Kind::dict) || v.is(Kind::undefined);
}
bool is_sequence(const Value& v) {
  return is_iterable(v) && (!v.is(Kind::list) || v.as_list().indexable());
}

bool has_case(Evaluator& e, const Value& v, bool upper) {
  bool any = false;
  const Value s = e.to_string(v);
  for (std::size_t at = 0; at < s.bytes().size();) {
    const char32_t c = next_code_point(s.bytes(), at);
    if (upper ? is_lower(c) : is_upper(c)) return false;
    any |= upper ? is_upper(c) : is_lower(c);
  }
  return any;
}

bool same(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  return a.kind() >= Kind::list ? a.object() == b.object() : equal(a, b);
}

template <Kind kind>
bool is_kind(Evaluator&, const Value& v, const Args&) {
  return v.is(kind);
}

bool test_equal(Evaluator& e, const Value& v, const Args& a) { return equal(v, operand(e, a)); }
bool test_unequal(Evaluator& e, const Value& v, const Args& a) { return !equal(v, operand(e, a)); }
bool test_greater(Evaluator& e, const Value& v, const Args& a) { return order(e, v, a) > 0; }
bool test_at_least(Evaluator& e, const Value& v, const Args& a) { return order(e, v, a) >= 0; }
bool test_less(Evaluator& e, const Value& v, const Args& a) { return order(e, v, a) < 0; }
bool test_at_most(Evaluator& e, const Value& v, const Args& a) { return order(e, v, a) <= 0; }

constexpr std::pair<std::string_view, Test> kTests[] = {
    {"!=", test_unequal},
    {"<", test_less},
    {"<=", test_at_most},
    {"==", test_equal},
    {">", test_greater},
    {">=", test_at_least},
    {"boolean", is_kind<Kind::boolean>},
    {"callable",
     [](Evaluator&, const Value& v, const Args&) {
       return v.is(Kind::function) || (v.is(Kind::loop)) || v.is(Kind::undefined);
     }},
    {"defined", [](Evaluator&, const Value& v, const Args&) { return !v.is(Kind::undefined); }},
    {"divisibleby",
     [](Evaluator& e, const Value& v, const Args& a) {
       return equal(e.binary("%", v, operand(e, a)), Value::integer(0));
     }},
    {"eq", test_equal},
    {"equalto", test_equal},
    {"even", [](Evaluator& e, const Value& v, const Args&) { return whole(e, v) % 2 == 0; }},
    {"false",
     [](Evaluator&, const Value& v, const Args&) { return v.is(Kind::boolean) && !v.as_bool(); }},
    {"filter", [](Evaluator&, const Value& v,
                  const Args&) { return v.is(Kind::string) && is_filter(v.bytes()); }},
    {"float", is_kind<Kind::real>},
    {"ge", test_at_least},
    {"greaterthan", test_greater},
    {"gt", test_greater},
    {"in",
     [](Evaluator& e, const Value& v, const Args& a) { return e.contains(operand(e, a), v); }},
    {"integer", is_kind<Kind::integer>},
    {"iterable", [](Evaluator&, const Value& v, const Args&) { return is_iterable(v); }},
    {"le", test_at_most},
    {"lessthan", test_less},
    {"lower", [](Evaluator& e, const Value& v, const Args&) { return has_case(e, v, false); }},
    {"lt", test_less},
    {"mapping", is_kind<Kind::dict>},
    {"ne", test_unequal},
    {"none", is_kind<Kind::none>},
    {"number", [](Evaluator&, const Value& v, const Args&) { return v.is_number(); }},
    {"odd", [](Evaluator& e, const Value& v, const Args&) { return whole(e, v) % 2 != 0; }},
    {"sameas", [](Evaluator& e, const Value& v, const Args& a) { return same(v, operand(e, a)); }},
    {"sequence", [](Evaluator&, const Value& v, const Args&) { return is_sequence(v); }},
    {"string", is_kind<Kind::string>},
    {"test", [](Evaluator&, const Value& v,
                const Args&) { return v.is(Kind::string) && is_test(v.bytes()); }},
    {"true",
     [](Evaluator&, const Value& v, const Args&) { return v.is(Kind::boolean) && v.as_bool(); }},
    {"undefined", is_kind<Kind::undefined>},
    {"upper", [](Evaluator& e, const Value& v, const Args&) { return has_case(e, v, true); }},
};

Test find(std::string_view name) {
  for (const auto& [have, test] : kTests)
    if (have == name) return test;
  return nullptr;
}

}  // namespace

bool is_test(std::string_view name) { return find(name) != nullptr; }

bool Evaluator::apply_test(const std::string& name, const Value& subject, const Args& args) {
  const Test test = find(name);
  if (!test) refuse(fmt::format("there is no test '{}'", name));
  charge(1);
  return test(*this, subject, args);
}

}  // namespace supersonic::text::jinja
