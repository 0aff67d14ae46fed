// Expressions of a template by recursive descent, with Jinja's precedences: what stands between {{
// and }}, and inside of tags.
#pragma once
#include "text/jinja_cursor.h"

namespace supersonic::text::jinja {

class ExpressionParser : protected TokenCursor {
 protected:
  ExpressionParser(std::string_view source, const std::string& name) : TokenCursor(source, name) {}

  NodePtr tuple_or_expression(bool conditional = true, std::string_view end = "",
                              bool parentheses = false);
  NodePtr expression();
  NodePtr filters(NodePtr of, bool inline_first = false);
  // A tag begins: operators are counted anew.
  void begin_chain() { chain_ = 0; }

 private:
  void count_chain();
  NodePtr disjunction();
  NodePtr conjunction();
  NodePtr negation();
  NodePtr comparison();
  NodePtr binary(NodePtr left, NodePtr right, int line, std::string op);
  NodePtr sum();
  NodePtr concatenation();
  NodePtr product();
  NodePtr power();
  NodePtr unary(bool with_filters = true);
  NodePtr postfix(NodePtr n);
  NodePtr attribute(NodePtr of);
  NodePtr subscript(NodePtr of);
  std::vector<Argument> arguments();
  NodePtr call(NodePtr of);
  NodePtr test(NodePtr of);
  NodePtr primary();
  NodePtr name_or_literal(NodePtr n, const Token& t);
  NodePtr sequence(NodePtr n, std::string_view close);

  int chain_ = 0;
};

}  // namespace supersonic::text::jinja
