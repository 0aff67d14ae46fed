// Operators, iteration, membership and slices.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_unicode.h"

namespace supersonic::text::jinja {
namespace {

Mark both(Mark a, Mark b) { return a.source == kFromTemplate ? b : a; }

// Python's // and %: rounded towards minus infinity.
std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  const std::int64_t q = a / b;
  return q - (a % b != 0 && (a < 0) != (b < 0));
}

bool int_power(std::int64_t base, std::int64_t exponent, std::int64_t& out) {
  out = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) && __builtin_mul_overflow(out, base, &out)) return false;
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return false;
  }
  return true;
}

Value int_arithmetic(Evaluator& e, std::string_view op, std::int64_t a, std::int64_t b, Mark mark) {
  std::int64_t r = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &r);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &r);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &r);
  } else if (op == "**") {
    if (b < 0) return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)), mark);
    overflow = !int_power(a, b, r);
  } else {
    if (b == 0) e.refuse("division by zero");
    if (op == "/") return Value::real(static_cast<double>(a) / static_cast<double>(b), mark);
    overflow = a == INT64_MIN && b == -1;
    if (!overflow) r = op == "//" ? floor_div(a, b) : a - floor_div(a, b) * b;
  }
  if (overflow) e.refuse("an integer grew over 64 bits");
  return Value::integer(r, mark);
}

Value real_arithmetic(Evaluator& e, std::string_view op, double a, double b, Mark mark) {
  if (op == "+") return Value::real(a + b, mark);
  if (op == "-") return Value::real(a - b, mark);
  if (op == "*") return Value::real(a * b, mark);
  if (op == "**") return Value::real(std::pow(a, b), mark);
  if (b == 0) e.refuse("division by zero");
  if (op == "/") return Value::real(a / b, mark);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == "%") return Value::real(remainder, mark);
  return Value::real(std::floor((a - remainder) / b + 0.5), mark);
}

Value repeat(Evaluator& e, const Value& what, std::int64_t times) {
  const std::size_t n = times > 0 ? static_cast<std::size_t>(times) : 0;
  if (what.is(Kind::string)) {
    Text out;
    for (std::size_t i = 0; i < n; ++i) {
      e.charge(what.bytes().size() / 32 + 1);
      out.append(what.text());
    }
    return e.make_string(std::move(out));
  }
  List* list = e.heap().list(what.as_list().flavor);
  for (std::size_t i = 0; i < n; ++i) {
    e.charge(what.as_list().items.size() + 1);
    list->items.insert(list->items.end(), what.as_list().items.begin(), what.as_list().items.end());
  }
  return Value::list(list);
}

bool is_sequence(const Value& v) {
  return v.is(Kind::string) || (v.is(Kind::list) && v.as_list().flavor <= Flavor::tuple);
}

}  // namespace

Value Evaluator::binary(std::string_view op, const Value& a, const Value& b) {
  if (a.is(Kind::undefined)) refuse_undefined(a);
  if (b.is(Kind::undefined)) refuse_undefined(b);
  if (op == "neg" || op == "pos") {
    if (!a.is_number()) refuse(fmt::format("a sign before a {}", type_name(a)));
    if (a.is(Kind::real)) return Value::real(op == "neg" ? -a.as_real() : a.as_real(), a.mark());
    return op == "neg" ? int_arithmetic(*this, "-", 0, a.as_int(), a.mark())
                       : Value::integer(a.as_int(), a.mark());
  }
  if (a.is_number() && b.is_number()) {
    const Mark mark = both(a.mark(), b.mark());
    if (a.is(Kind::real) || b.is(Kind::real))
      return real_arithmetic(*this, op, a.as_real(), b.as_real(), mark);
    return int_arithmetic(*this, op, a.as_int(), b.as_int(), mark);
  }
  if (op == "+" && a.is(Kind::string) && b.is(Kind::string)) {
    const bool safe = a.text().safe || b.text().safe;
    const auto part = [&](const Value& v) {
      return safe && !v.text().safe ? apply_filter("e", v, {}) : v;
    };
    Text out = part(a).text();
    out.append(part(b).text());
    out.safe = safe;
    return make_string(std::move(out));
  }
  if (op == "+" && is_sequence(a) && is_sequence(b) && a.is(Kind::list) && b.is(Kind::list) &&
      a.as_list().flavor == b.as_list().flavor) {
    List* list = heap_.list(a.as_list().flavor);
    list->items = a.as_list().items;
    list->items.insert(list->items.end(), b.as_list().items.begin(), b.as_list().items.end());
    charge(list->items.size());
    return Value::list(list);
  }
  const auto whole = [](const Value& v) { return v.is(Kind::integer) || v.is(Kind::boolean); };
  if (op == "*" && is_sequence(a) && whole(b)) return repeat(*this, a, b.as_int());
  if (op == "*" && is_sequence(b) && whole(a)) return repeat(*this, b, a.as_int());
  if (op == "%" && a.is(Kind::string)) {
    Args args;
    if (b.is(Kind::list) && b.as_list().flavor == Flavor::tuple) {
      args.items = b.as_list().items;
    } else {
      args.items.push_back(b);
    }
    return apply_filter("format", a, args);
  }
  refuse(fmt::format("'{}' cannot join a {} and a {}", op, type_name(a), type_name(b)));
}

std::span<const Value> Evaluator::iterate(const Value& v, std::vector<Value>& holder) {
  switch (v.kind()) {
    case Kind::undefined:
      return {};
    case Kind::list: {
      List& list = v.as_list();
      charge(list.items.size());
      if (list.flavor == Flavor::generator) {
        holder = std::exchange(list.items, {});
      } else {
        holder = list.items;  // a copy: the body may change the list
      }
      return holder;
    }
    case Kind::dict:
      for (const auto& [key, value] : v.as_dict().items) holder.push_back(key);
      charge(holder.size());
      return holder;
    case Kind::string: {
      const std::string& s = v.bytes();
      charge(s.size() * 4);
      std::size_t run = 0;
      for (std::size_t at = 0; at < s.size();) {
        const std::size_t begin = at;
        next_code_point(s, at);
        while (v.text().runs[run].end <= begin) ++run;
        holder.push_back(
            Value::string(std::string_view(s).substr(begin, at - begin), v.text().runs[run].mark));
      }
      return holder;
    }
    default:
      refuse(fmt::format("a {} cannot be walked", type_name(v)));
  }
}

bool Evaluator::contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::undefined:
      return false;
    case Kind::string:
      if (!item.is(Kind::string))
        refuse(fmt::format("'in' a string needs a string, got a {}", type_name(item)));
      charge(container.bytes().size() / 32);
      return container.bytes().find(item.bytes()) != std::string::npos;
    case Kind::dict:
      charge(container.as_dict().items.size() / 16);
      return container.as_dict().find(item) != nullptr;
    case Kind::list:
      charge(container.as_list().items.size());
      return std::any_of(container.as_list().items.begin(), container.as_list().items.end(),
                         [&](const Value& v) { return equal(v, item); });
    default:
      refuse(fmt::format("'in' needs a string, a list or a dict, got a {}", type_name(container)));
  }
}

// Python's slice: which indices of a sequence of n elements, in order.
static std::vector<std::size_t> slice_indices(Evaluator& e, std::int64_t n, const Value* begin,
                                              const Value* end, const Value* step) {
  const auto bound = [&](const Value* v, std::int64_t fallback) {
    if (!v || v->is(Kind::none)) return fallback;
    if (!v->is(Kind::integer) && !v->is(Kind::boolean))
      e.refuse(fmt::format("a slice bound is a {}", type_name(*v)));
    return v->as_int();
  };
  const std::int64_t by = bound(step, 1);
  if (by == 0) e.refuse("a slice step is zero");
  const std::int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
  const auto clamp = [&](std::int64_t i) { return std::clamp(i < 0 ? i + n : i, low, high); };
  constexpr std::int64_t kNone = INT64_MIN;
  std::int64_t from = bound(begin, kNone), to = bound(end, kNone);
  from = from == kNone ? (by > 0 ? 0 : n - 1) : clamp(from);
  to = to == kNone ? (by > 0 ? n : -1) : clamp(to);
  std::vector<std::size_t> out;
  for (std::int64_t i = from; by > 0 ? i < to : i > to;) {
    out.push_back(static_cast<std::size_t>(i));
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  return out;
}

Value Evaluator::slice(const Value& of, const Value* begin, const Value* end, const Value* step) {
  if (of.is(Kind::undefined)) refuse_undefined(of);
  if (of.is(Kind::list) && of.as_list().indexable()) {
    const auto& items = of.as_list().items;
    List* list = heap_.list(of.as_list().flavor);
    for (std::size_t i :
         slice_indices(*this, static_cast<std::int64_t>(items.size()), begin, end, step))
      list->items.push_back(items[i]);
    charge(list->items.size() + 1);
    return Value::list(list);
  }
  if (!of.is(Kind::string)) return Value();
  const std::string& s = of.bytes();
  std::vector<std::size_t> starts;
  for (std::size_t at = 0; at < s.size(); next_code_point(s, at)) starts.push_back(at);
  charge(starts.size() / 8);
  Text out;
  const auto indices =
      slice_indices(*this, static_cast<std::int64_t>(starts.size()), begin, end, step);
  starts.push_back(s.size());
  const bool contiguous = !step || step->is(Kind::none) || step->as_int() == 1;
  if (contiguous && !indices.empty()) {
    out.append(of.text(), starts[indices.front()], starts[indices.back() + 1]);
  } else {
    charge(indices.size() * of.text().runs.size());
    for (std::size_t i : indices) out.append(of.text(), starts[i], starts[i + 1]);
  }
  return make_string(std::move(out));
}

}  // namespace supersonic::text::jinja
