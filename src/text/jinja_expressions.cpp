#include "text/jinja_expressions.h"

namespace supersonic::text::jinja {
namespace {

constexpr int kMaxChain =
    1000;  // operators, filters and subscripts of one tag: they nest to the left

}  // namespace

NodePtr ExpressionParser::tuple_or_expression(bool conditional, std::string_view end,
                                              bool parentheses) {
  const int line = now().line;
  std::vector<NodePtr> items;
  bool tuple = false;
  while (true) {
    if (!items.empty()) expect(",");
    const Tok t = now().type;
    if (t == Tok::variable_end || t == Tok::block_end || now().is(")") ||
        (!end.empty() && now().is_name(end)))
      break;
    items.push_back(conditional ? expression() : disjunction());
    if (!now().is(",")) break;
    tuple = true;
  }
  if (!tuple && !items.empty()) return std::move(items[0]);
  if (!tuple && !parentheses)
    fail_here(fmt::format("expected an expression, got {}", describe(now())));
  auto n = node(N::tuple, line);
  n->kids = std::move(items);
  return n;
}

NodePtr ExpressionParser::expression() {
  const Deeper deeper(*this);
  const int line = now().line;
  NodePtr value = disjunction();
  while (skip_name("if")) {
    count_chain();
    NodePtr test = disjunction();
    NodePtr other = skip_name("else") ? expression() : nullptr;
    value = node(N::condition, line, std::move(test), std::move(value), std::move(other));
  }
  return value;
}

// Chains of operators are left-deep trees, evaluated and freed by recursion: a tag may hold so
// many.
void ExpressionParser::count_chain() {
  if (++chain_ > kMaxChain) fail_here(fmt::format("over {} operators in one tag", kMaxChain));
}

NodePtr ExpressionParser::disjunction() {
  NodePtr left = conjunction();
  while (now().is_name("or")) {
    const int line = take().line;
    count_chain();
    left = node(N::either, line, std::move(left), conjunction());
  }
  return left;
}

NodePtr ExpressionParser::conjunction() {
  NodePtr left = negation();
  while (now().is_name("and")) {
    const int line = take().line;
    count_chain();
    left = node(N::both, line, std::move(left), negation());
  }
  return left;
}

NodePtr ExpressionParser::negation() {
  if (!now().is_name("not")) return comparison();
  const Deeper deeper(*this);
  const int line = take().line;
  return node(N::invert, line, negation());
}

NodePtr ExpressionParser::comparison() {
  const int line = now().line;
  NodePtr left = sum();
  NodePtr chain;
  static constexpr std::string_view ops[] = {"==", "!=", "<", "<=", ">", ">="};
  while (true) {
    std::string op;
    for (auto candidate : ops)
      if (now().is(candidate)) op = candidate;
    if (now().is_name("in")) op = "in";
    if (now().is_name("not") && ahead().is_name("in")) op = "not in";
    if (op.empty()) break;
    at_ += op == "not in" ? 2 : 1;
    if (!chain) chain = node(N::compare, line, std::move(left));
    chain->names.push_back(op);
    chain->kids.push_back(sum());
  }
  return chain ? std::move(chain) : std::move(left);
}

NodePtr ExpressionParser::binary(NodePtr left, NodePtr right, int line, std::string op) {
  auto n = node(N::binary, line, std::move(left), std::move(right));
  n->name = std::move(op);
  return n;
}

NodePtr ExpressionParser::sum() {
  NodePtr left = concatenation();
  while (now().is("+") || now().is("-")) {
    const Token op = take();
    count_chain();
    left = binary(std::move(left), concatenation(), op.line, op.text);
  }
  return left;
}

NodePtr ExpressionParser::concatenation() {
  const int line = now().line;
  NodePtr first = product();
  if (!now().is("~")) return first;
  auto n = node(N::concat, line, std::move(first));
  while (skip("~")) n->kids.push_back(product());
  return n;
}

NodePtr ExpressionParser::product() {
  NodePtr left = power();
  while (now().is("*") || now().is("/") || now().is("//") || now().is("%")) {
    const Token op = take();
    count_chain();
    left = binary(std::move(left), power(), op.line, op.text);
  }
  return left;
}

NodePtr ExpressionParser::power() {
  NodePtr left = unary();
  while (now().is("**")) {
    const Token op = take();
    count_chain();
    left = binary(std::move(left), unary(), op.line, op.text);
  }
  return left;
}

NodePtr ExpressionParser::unary(bool with_filters) {
  const Deeper deeper(*this);
  NodePtr n;
  if (now().is("-") || now().is("+")) {
    const Token op = take();
    n = node(op.text == "-" ? N::negate : N::plus, op.line, unary(false));
  } else {
    n = primary();
  }
  n = postfix(std::move(n));
  while (with_filters) {
    count_chain();
    if (now().is("|")) {
      n = filters(std::move(n));
    } else if (now().is_name("is")) {
      n = test(std::move(n));
    } else if (now().is("(")) {
      n = call(std::move(n));
    } else {
      break;
    }
  }
  return n;
}

NodePtr ExpressionParser::postfix(NodePtr n) {
  while (true) {
    count_chain();
    if (now().is(".")) {
      n = attribute(std::move(n));
    } else if (now().is("[")) {
      n = subscript(std::move(n));
    } else if (now().is("(")) {
      n = call(std::move(n));
    } else {
      return n;
    }
  }
}

NodePtr ExpressionParser::attribute(NodePtr of) {
  const int line = take().line;
  if (now().type == Tok::integer) {
    auto index = node(N::constant);
    index->value = Value::integer(take().integer);
    return node(N::subscript, line, std::move(of), std::move(index));
  }
  auto n = node(N::attribute, line, std::move(of));
  n->name = expect_name("an attribute's name");
  return n;
}

NodePtr ExpressionParser::subscript(NodePtr of) {
  const int line = take().line;
  NodePtr first = now().is(":") ? nullptr : expression();
  if (skip("]")) return node(N::subscript, line, std::move(of), std::move(first));
  expect(":");
  const auto bound = [&]() -> NodePtr {
    return now().is(":") || now().is("]") ? nullptr : expression();
  };
  NodePtr second = bound(), step;
  if (skip(":")) step = bound();
  expect("]");
  return node(N::slice, line, std::move(of), std::move(first), std::move(second), std::move(step));
}

std::vector<Argument> ExpressionParser::arguments() {
  expect("(");
  std::vector<Argument> out;
  bool named = false;
  while (!now().is(")")) {
    if (!out.empty()) {
      expect(",");
      if (now().is(")")) break;
    }
    Argument a;
    if (skip("**")) {
      a.spread = Argument::dict;
      named = true;
    } else if (skip("*")) {
      a.spread = Argument::list;
    } else if (now().type == Tok::name && ahead().is("=")) {
      a.name = take().text;
      ++at_;
      named = true;
    } else if (named) {
      fail_here("a positional argument follows a keyword argument");
    }
    a.value = expression();
    out.push_back(std::move(a));
  }
  ++at_;
  return out;
}

NodePtr ExpressionParser::call(NodePtr of) {
  const int line = now().line;
  auto n = node(N::call, line, std::move(of));
  n->args = arguments();
  return n;
}

NodePtr ExpressionParser::filters(NodePtr of, bool inline_first) {
  while (inline_first || skip("|")) {
    inline_first = false;
    count_chain();
    auto n = node(N::filter, now().line, std::move(of));
    n->name = expect_name("a filter's name");
    if (now().is("(")) n->args = arguments();
    of = std::move(n);
  }
  return of;
}

NodePtr ExpressionParser::test(NodePtr of) {
  const int line = take().line;
  const bool inverted = skip_name("not");
  auto n = node(N::test, line, std::move(of));
  n->name = expect_name("a test's name");
  const Token& t = now();
  const bool operand = t.type == Tok::name || t.type == Tok::string || t.type == Tok::integer ||
                       t.type == Tok::real || t.is("[") || t.is("{");
  if (t.is("(")) {
    n->args = arguments();
  } else if (operand && !t.is_name("else") && !t.is_name("or") && !t.is_name("and")) {
    if (t.is_name("is")) fail_here("tests cannot be chained with 'is'");
    Argument a;
    a.value = postfix(primary());
    n->args.push_back(std::move(a));
  }
  return inverted ? node(N::invert, line, std::move(n)) : std::move(n);
}

NodePtr ExpressionParser::primary() {
  const Deeper deeper(*this);
  auto n = node(N::constant);
  const Token t = take();
  switch (t.type) {
    case Tok::name:
      return name_or_literal(std::move(n), t);
    case Tok::integer:
      n->value = Value::integer(t.integer);
      return n;
    case Tok::real:
      n->value = Value::real(t.real);
      return n;
    case Tok::string: {
      std::string s = t.text;
      while (now().type == Tok::string) s += take().text;
      n->value = Value::string(s);
      return n;
    }
    default:
      break;
  }
  if (t.is("(")) {
    n = tuple_or_expression(true, "", true);
    expect(")");
    return n;
  }
  if (t.is("[")) return sequence(std::move(n), "]");
  if (t.is("{")) return sequence(std::move(n), "}");
  if (t.type != Tok::end) --at_;
  fail_here(fmt::format("unexpected {}", describe(t)));
}

NodePtr ExpressionParser::name_or_literal(NodePtr n, const Token& t) {
  if (t.text == "true" || t.text == "True" || t.text == "false" || t.text == "False") {
    n->value = Value::boolean(t.text[0] == 't' || t.text[0] == 'T');
  } else if (t.text == "none" || t.text == "None") {
    n->value = Value::none();
  } else {
    n->kind = N::name;
    n->name = t.text;
    n->id = intern(t.text);
  }
  return n;
}

NodePtr ExpressionParser::sequence(NodePtr n, std::string_view close) {
  n->kind = close == "]" ? N::list : N::dict;
  while (!now().is(close)) {
    if (!n->kids.empty()) expect(",");
    if (now().is(close)) break;
    n->kids.push_back(expression());
    if (n->kind == N::list) continue;
    expect(":");
    n->kids.push_back(expression());
  }
  ++at_;
  return n;
}

}  // namespace supersonic::text::jinja
