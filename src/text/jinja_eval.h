// The interpreter: walks the tree and writes marked text, within budgets of steps, depth and output
// bytes.
//
// Names resolve through a chain of scopes, as Jinja's do: loops, macros and captured blocks open
// one, `if` does not. Nothing but data can be reached: attributes are keys of dicts, fields of
// namespaces and loops, or the methods listed in jinja_methods.cpp.
#pragma once
#include <cstdint>
#include <ctime>
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"

namespace supersonic::text::jinja {

struct Limits {
  std::int64_t steps = 10'000'000;  // nodes evaluated plus elements and 32-byte pieces touched
  int depth = 1200;                 // nested evaluations; a macro call takes about six
  std::size_t output = std::size_t{1} << 26;  // bytes of the rendered text
};

struct Args {
  std::vector<Value> items;
  std::vector<std::pair<std::string, Value>> named;
  // Argument i of a function whose parameter is called name; null when not given.
  const Value* get(std::size_t i, std::string_view name) const;
};

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> items;
  const Value* find(int id) const;
  void set(int id, Value value);
};

class Evaluator {
 public:
  Evaluator(const Tree& tree, const Limits& limits, std::time_t now);

  // Renders with these variables at the root.
  Text render(const std::vector<std::pair<std::string, Value>>& variables);

  // For filters, tests and methods:
  Heap& heap() { return heap_; }
  std::time_t now() const { return now_; }
  void charge(std::size_t amount);  // counts steps; throws when they are used up
  Value make_string(Text text);     // charged by size
  Value to_string(const Value& v);  // str(v)
  // The elements that iterating v yields: items, keys, characters. A generator is used up. `holder`
  // keeps temporaries.
  std::span<const Value> iterate(const Value& v, std::vector<Value>& holder);
  Value get_item(const Value& of, const Value& key);
  Value get_attribute(const Value& of, const std::string& name);
  Value slice(const Value& of, const Value* begin, const Value* end, const Value* step);
  Value binary(std::string_view op, const Value& a, const Value& b);
  bool contains(const Value& container, const Value& item);
  Value apply_filter(const std::string& name, const Value& subject, const Args& args);
  bool apply_test(const std::string& name, const Value& subject, const Args& args);
  Value call_method(const Value& self, const std::string& name, const Args& args);
  Value call_global(const std::string& name, const Args& args);
  [[noreturn]] void refuse(
      const std::string& message);  // Error(bad_file) with the template's name and current line
  [[noreturn]] void refuse_undefined(const Value& v);

 private:
  enum class Flow : std::uint8_t { next, break_loop, continue_loop };
  struct Deeper;

  Flow execute(const std::vector<NodePtr>& body);
  Flow execute(const Node& n);
  Flow execute_loop(const Node& n, const Value& over, Loop* outer);
  Flow execute_with(const Node& n);
  void execute_call_block(const Node& n);
  Text capture(const Node& n);
  void assign(const Node& target, const Value& value);
  void write(const Value& v);

  Value evaluate(const Node& n);
  Value evaluate_name(const Node& n);
  Value evaluate_compare(const Node& n);
  Value evaluate_concat(const Node& n);
  Value evaluate_literal(const Node& n);
  Value evaluate_call(const Node& n, const Value* caller = nullptr);
  Value evaluate_filter(const Node& n, const Value* subject);
  Args evaluate_args(const std::vector<Argument>& arguments);
  Value call(const Value& function, Args args);
  Value call_macro(Function& function, Args args);
  Value recurse(Loop& loop, const Args& args);
  Value loop_field(Loop& loop, const std::string& name);
  Scope* open_scope(bool captured, Scope& local);
  Function* make_function(const std::string& name, Value self);

  const Tree& tree_;
  const Limits limits_;
  const std::time_t now_;
  Heap heap_;
  std::deque<Scope> scopes_;  // those that a macro may still see
  std::deque<Function> functions_;
  std::deque<Loop> loops_;
  Scope root_;
  Scope* scope_ = &root_;
  Text* out_ = nullptr;
  std::int64_t steps_ = 0;
  int depth_ = 0;
  int line_ = 1;
};

}  // namespace supersonic::text::jinja

namespace supersonic::text {

// A macro, a bound method, or a global function.
struct Function {
  std::string name;
  Value self;                          // of a method; undefined otherwise
  const jinja::Node* macro = nullptr;  // macro or call block
  jinja::Scope* scope = nullptr;       // where the macro was defined
  bool method = false;
};

// The `loop` variable.
struct Loop {
  const jinja::Node* node = nullptr;  // for recursive loops
  jinja::Scope* scope = nullptr;
  std::vector<Value> items;
  std::size_t index = 0;
  int depth = 0;
  std::vector<Value> changed;  // arguments of the last loop.changed(...)
  bool has_changed = false;
};

}  // namespace supersonic::text

namespace supersonic::text::jinja {
bool has_method(const Value& self, std::string_view name);
bool is_global(std::string_view name);
bool is_filter(std::string_view name);
bool is_test(std::string_view name);
}  // namespace supersonic::text::jinja
