// The tags of a template by recursive descent: loops, branches, assignments, macros. Expressions:
// jinja_expressions.h.
#include "text/jinja_expressions.h"

namespace supersonic::text::jinja {
namespace {

class Parser : ExpressionParser {
 public:
  Parser(std::string_view source, const std::string& name) : ExpressionParser(source, name) {}

  Tree run() {
    tree_.body = statements({});
    return std::move(tree_);
  }

 private:
  // Up to one of the named end tags, which is left as the current token; to the end of the template
  // when none is named.
  std::vector<NodePtr> statements(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(*this);
    std::vector<NodePtr> out;
    const int opened = now().line;
    while (true) {
      begin_chain();
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

  int loops_ = 0;           // open where the parser stands
  std::size_t macros_ = 0;  // begun so far
};

}  // namespace

Tree parse(std::string_view source, const std::string& name) { return Parser(source, name).run(); }

}  // namespace supersonic::text::jinja
