// Recursive descent over the tokens, with Jinja's precedences; nesting is bounded so that no
// template overflows the stack.
#include <unordered_map>

#include "core/error.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace supersonic::text::jinja {
namespace {

constexpr int kMaxDepth = 300;
constexpr int kMaxChain =
    1000;  // operators, filters and subscripts of one tag: they nest to the left

class Parser {
 public:
  Parser(std::string_view source, const std::string& name) : tokens_(tokenize(source, name)) {
    tree_.name = name;
  }

  Tree run() {
    tree_.body = statements({});
    return std::move(tree_);
  }

 private:
  struct Deeper {
    explicit Deeper(Parser& p) : parser(p) {
      if (++p.depth_ > kMaxDepth) p.fail_here(fmt::format("nested over {} levels deep", kMaxDepth));
    }
    ~Deeper() { --parser.depth_; }
    Parser& parser;
  };

  [[noreturn]] void fail_here(const std::string& message) {
    throw Error(fmt::format("template {}, line {}: {}", tree_.name, now().line, message),
                ErrorKind::bad_file);
  }
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() {
    const Token& token = tokens_[at_];
    if (token.type != Tok::end) ++at_;
    return token;
  }
  bool skip(std::string_view op) {
    if (!now().is(op)) return false;
    ++at_;
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!now().is_name(name)) return false;
    ++at_;
    return true;
  }
  static std::string describe(const Token& t) {
    switch (t.type) {
      case Tok::end:
        return "the end of the template";
      case Tok::block_end:
        return "'%}'";
      case Tok::variable_end:
        return "'}}'";
      case Tok::data:
        return "text";
      default:
        return "'" + t.text + "'";
    }
  }
  void expect(std::string_view op) {
    if (!skip(op)) fail_here(fmt::format("expected '{}', got {}", op, describe(now())));
  }
  void expect(Tok type, std::string_view what) {
    if (now().type != type) fail_here(fmt::format("expected {}, got {}", what, describe(now())));
    ++at_;
  }
  std::string expect_name(std::string_view what) {
    if (now().type != Tok::name)
      fail_here(fmt::format("expected {}, got {}", what, describe(now())));
    return take().text;
  }
  NodePtr node(N kind) {
    auto n = std::make_unique<Node>();
    n->kind = kind;
    n->line = now().line;
    return n;
  }
  template <class... Kids>
  NodePtr node(N kind, int line, Kids... kids) {
    auto n = std::make_unique<Node>();
    n->kind = kind;
    n->line = line;
    (n->kids.push_back(std::move(kids)), ...);
    return n;
  }
  int intern(const std::string& name) {
    const auto [it, fresh] = ids_.try_emplace(name, static_cast<int>(tree_.names.size()));
    if (fresh) tree_.names.push_back(name);
    return it->second;
  }

  // ---- statements

  // Up to one of the named end tags, which is left as the current token; to the end of the template
  // when none is named.
  std::vector<NodePtr> statements(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(*this);
    std::vector<NodePtr> out;
    const int opened = now().line;
    while (true) {
      chain_ = 0;
      if (now().type == Tok::end) {
        if (ends.size() == 0) return out;
        fail_here(fmt::format("the block opened in line {} lacks its '{{% {} %}}'", opened,
                              *(ends.end() - 1)));
      }
      if (now().type == Tok::data) {
        auto n = node(N::data);
        n->value = Value::string(take().text);
        out.push_back(std::move(n));
      } else if (now().type == Tok::variable_begin) {
        auto n = node(N::output);
        ++at_;
        n->kids.push_back(tuple_or_expression());
        expect(Tok::variable_end, "'}}'");
        out.push_back(std::move(n));
      } else {
        expect(Tok::block_begin, "'{%'");
        for (std::string_view end : ends)
          if (now().is_name(end)) return out;
        out.push_back(statement());
        expect(Tok::block_end, "'%}'");
      }
    }
  }

  // After a block's opening tag: its body and the closing tag's name.
  std::vector<NodePtr> block(std::string_view end) {
    auto body = open_block({end});
    ++at_;
    return body;
  }
  std::vector<NodePtr> open_block(std::initializer_list<std::string_view> ends) {
    skip(":");
    expect(Tok::block_end, "'%}'");
    return statements(ends);
  }

  NodePtr statement() {
    const std::string tag = now().type == Tok::name ? now().text : "";
    if (tag == "for") return for_loop();
    if (tag == "if") return branch();
    if (tag == "set") return set();
    if (tag == "macro") return macro();
    if (tag == "call") return call_block();
    if (tag == "with") return with();
    if (tag == "filter") return filter_block();
    if (tag == "generation") return generation();
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail_here(fmt::format("'{}' outside of a loop", tag));
      auto n = node(tag == "break" ? N::break_loop : N::continue_loop);
      ++at_;
      return n;
    }
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends" ||
        tag == "block") {
      fail_here(fmt::format("'{}' is refused: a chat template is one file", tag));
    }
    fail_here(fmt::format("unknown tag {}", describe(now())));
  }

  NodePtr for_loop() {
    auto n = node(N::loop);
    const std::size_t macros = macros_;
    ++at_;
    n->target = target(false, "in");
    if (!skip_name("in")) fail_here(fmt::format("expected 'in', got {}", describe(now())));
    n->kids.push_back(tuple_or_expression(false, "recursive"));
    n->kids.push_back(skip_name("if") ? expression() : nullptr);
    n->recursive = skip_name("recursive");
    ++loops_;
    n->body = open_block({"else", "endfor"});
    --loops_;
    if (take().text == "else") n->orelse = block("endfor");
    n->captures = macros_ != macros;
    return n;
  }

  NodePtr branch() {
    const Deeper deeper(*this);
    auto n = node(N::branch);
    ++at_;
    n->kids.push_back(tuple_or_expression(false));
    n->body = open_block({"elif", "else", "endif"});
    if (now().is_name("elif")) {
      n->orelse.push_back(elif_chain());
    } else if (take().text == "else") {
      n->orelse = block("endif");
    }
    return n;
  }

  // elif after elif, without recursion: long chains are common.
  NodePtr elif_chain() {
    std::vector<NodePtr> chain;
    while (now().is_name("elif")) {
      auto n = node(N::branch);
      ++at_;
      n->kids.push_back(tuple_or_expression(false));
      n->body = open_block({"elif", "else", "endif"});
      chain.push_back(std::move(n));
      if (chain.size() > kMaxDepth) fail_here(fmt::format("over {} 'elif' in one 'if'", kMaxDepth));
    }
    if (take().text == "else") chain.back()->orelse = block("endif");
    while (chain.size() > 1) {
      NodePtr last = std::move(chain.back());
      chain.pop_back();
      chain.back()->orelse.push_back(std::move(last));
    }
    return std::move(chain.front());
  }

  NodePtr set() {
    auto n = node(N::set);
    ++at_;
    n->target = target(true, "");
    if (skip("=")) {
      n->kids.push_back(tuple_or_expression());
      return n;
    }
    n->kind = N::set_block;
    const std::size_t macros = macros_;
    n->kids.push_back(now().is("|") ? filters(nullptr) : nullptr);
    n->body = block("endset");
    n->captures = macros_ != macros;
    return n;
  }

  void signature(Node& n) {
    expect("(");
    while (!now().is(")")) {
      if (!n.params.empty()) expect(",");
      Parameter p;
      p.name = expect_name("a parameter's name");
      p.id = intern(p.name);
      if (skip("=")) {
        p.fallback = expression();
      } else if (!n.params.empty() && n.params.back().fallback) {
        fail_here("a parameter without a default follows one with a default");
      }
      n.params.push_back(std::move(p));
    }
    ++at_;
  }

  std::vector<NodePtr> macro_body(std::string_view end) {
    ++macros_;
    const int loops = std::exchange(loops_, 0);
    auto body = block(end);
    loops_ = loops;
    return body;
  }

  NodePtr macro() {
    auto n = node(N::macro);
    ++at_;
    n->name = expect_name("the macro's name");
    n->id = intern(n->name);
    signature(*n);
    n->body = macro_body("endmacro");
    return n;
  }

  NodePtr call_block() {
    auto n = node(N::call_block);
    ++at_;
    if (now().is("(")) signature(*n);
    n->kids.push_back(expression());
    if (n->kids[0]->kind != N::call) fail_here("expected a call after 'call'");
    n->name = "caller";
    n->id = intern(n->name);
    n->body = macro_body("endcall");
    return n;
  }

  NodePtr with() {
    auto n = node(N::with);
    const std::size_t macros = macros_;
    ++at_;
    while (now().type != Tok::block_end) {
      if (!n->params.empty()) expect(",");
      Parameter p;
      p.name = expect_name("a name");
      p.id = intern(p.name);
      expect("=");
      p.fallback = expression();
      n->params.push_back(std::move(p));
    }
    n->body = block("endwith");
    n->captures = macros_ != macros;
    return n;
  }

  NodePtr filter_block() {
    auto n = node(N::filter_block);
    const std::size_t macros = macros_;
    ++at_;
    n->kids.push_back(filters(nullptr, true));
    n->body = block("endfilter");
    n->captures = macros_ != macros;
    return n;
  }

  NodePtr generation() {
    auto n = node(N::generation);
    const std::size_t macros = macros_;
    ++at_;
    const int loops = std::exchange(loops_, 0);
    n->body = block("endgeneration");
    loops_ = loops;
    n->captures = macros_ != macros;
    return n;
  }

  // ---- targets of set and for

  NodePtr one_target(bool fields) {
    const Deeper deeper(*this);
    if (skip("(")) {
      auto n = target(fields, "");
      expect(")");
      return n;
    }
    auto n = node(N::name);
    n->name = expect_name("a name to assign to");
    static constexpr std::string_view reserved[] = {"true", "false", "none",
                                                    "True", "False", "None"};
    for (auto word : reserved)
      if (n->name == word) fail_here(fmt::format("cannot assign to '{}'", word));
    n->id = intern(n->name);
    if (fields && skip(".")) {
      n->kind = N::field;
      n->names.push_back(expect_name("an attribute"));
    }
    return n;
  }

  NodePtr target(bool fields, std::string_view end) {
    auto first = one_target(fields);
    if (!now().is(",")) return first;
    auto n = node(N::tuple);
    n->kids.push_back(std::move(first));
    while (skip(",")) {
      if (now().is(")") || now().is("=") || (!end.empty() && now().is_name(end))) break;
      n->kids.push_back(one_target(fields));
    }
    return n;
  }

  // ---- expressions, loosest first

  NodePtr tuple_or_expression(bool conditional = true, std::string_view end = "",
                              bool parentheses = false) {
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

  NodePtr expression() {
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
  void count_chain() {
    if (++chain_ > kMaxChain) fail_here(fmt::format("over {} operators in one tag", kMaxChain));
  }

  NodePtr disjunction() {
    NodePtr left = conjunction();
    while (now().is_name("or")) {
      const int line = take().line;
      count_chain();
      left = node(N::either, line, std::move(left), conjunction());
    }
    return left;
  }

  NodePtr conjunction() {
    NodePtr left = negation();
    while (now().is_name("and")) {
      const int line = take().line;
      count_chain();
      left = node(N::both, line, std::move(left), negation());
    }
    return left;
  }

  NodePtr negation() {
    if (!now().is_name("not")) return comparison();
    const Deeper deeper(*this);
    const int line = take().line;
    return node(N::invert, line, negation());
  }

  NodePtr comparison() {
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

  NodePtr binary(NodePtr left, NodePtr right, int line, std::string op) {
    auto n = node(N::binary, line, std::move(left), std::move(right));
    n->name = std::move(op);
    return n;
  }

  NodePtr sum() {
    NodePtr left = concatenation();
    while (now().is("+") || now().is("-")) {
      const Token op = take();
      count_chain();
      left = binary(std::move(left), concatenation(), op.line, op.text);
    }
    return left;
  }

  NodePtr concatenation() {
    const int line = now().line;
    NodePtr first = product();
    if (!now().is("~")) return first;
    auto n = node(N::concat, line, std::move(first));
    while (skip("~")) n->kids.push_back(product());
    return n;
  }

  NodePtr product() {
    NodePtr left = power();
    while (now().is("*") || now().is("/") || now().is("//") || now().is("%")) {
      const Token op = take();
      count_chain();
      left = binary(std::move(left), power(), op.line, op.text);
    }
    return left;
  }

  NodePtr power() {
    NodePtr left = unary();
    while (now().is("**")) {
      const Token op = take();
      count_chain();
      left = binary(std::move(left), unary(), op.line, op.text);
    }
    return left;
  }

  NodePtr unary(bool with_filters = true) {
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

  NodePtr postfix(NodePtr n) {
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

  NodePtr attribute(NodePtr of) {
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

  NodePtr subscript(NodePtr of) {
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
    return node(N::slice, line, std::move(of), std::move(first), std::move(second),
                std::move(step));
  }

  std::vector<Argument> arguments() {
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

  NodePtr call(NodePtr of) {
    const int line = now().line;
    auto n = node(N::call, line, std::move(of));
    n->args = arguments();
    return n;
  }

  NodePtr filters(NodePtr of, bool inline_first = false) {
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

  NodePtr test(NodePtr of) {
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

  NodePtr primary() {
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

  NodePtr name_or_literal(NodePtr n, const Token& t) {
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

  NodePtr sequence(NodePtr n, std::string_view close) {
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

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  Tree tree_;
  std::unordered_map<std::string, int> ids_;
  int depth_ = 0, loops_ = 0, chain_ = 0;
  std::size_t macros_ = 0;
};

}  // namespace

Tree parse(std::string_view source, const std::string& name) { return Parser(source, name).run(); }

}  // namespace supersonic::text::jinja
