// The tokens of a template, read one after the other, and the making of nodes: what the parsers of
// expressions and of statements share. Nesting is bounded, so that no template overflows the stack.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace supersonic::text::jinja {

class TokenCursor {
 protected:
  static constexpr int kMaxDepth = 300;

  TokenCursor(std::string_view source, const std::string& name) : tokens_(tokenize(source, name)) {
    tree_.name = name;
  }

  struct Deeper {
    explicit Deeper(TokenCursor& p) : parser(p) {
      if (++p.depth_ > kMaxDepth) p.fail_here(fmt::format("nested over {} levels deep", kMaxDepth));
    }
    ~Deeper() { --parser.depth_; }
    TokenCursor& parser;
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

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  Tree tree_;

 private:
  std::unordered_map<std::string, int> ids_;
  int depth_ = 0;
};

}  // namespace supersonic::text::jinja
