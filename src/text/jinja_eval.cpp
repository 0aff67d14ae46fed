// Statements, scopes, calls and the plain expressions; operators, filters, tests and methods have
// their own files.
#include "text/jinja_eval.h"

#include "core/error.h"

namespace supersonic::text::jinja {

const Value* Args::get(std::size_t i, std::string_view name) const {
  if (i < items.size()) return &items[i];
  for (const auto& [have, value] : named)
    if (have == name) return &value;
  return nullptr;
}

const Value* Scope::find(int id) const {
  for (const Scope* s = this; s; s = s->parent)
    for (const auto& [have, value] : s->items)
      if (have == id) return &value;
  return nullptr;
}

void Scope::set(int id, Value value) {
  for (auto& [have, old] : items) {
    if (have != id) continue;
    old = std::move(value);
    return;
  }
  items.emplace_back(id, std::move(value));
}

struct Evaluator::Deeper {
  Deeper(Evaluator& e, const Node& n) : evaluator(e), line(e.line_) {
    e.line_ = n.line;
    if (++e.depth_ > e.limits_.depth) e.refuse("the template calls itself too deeply");
    e.charge(1);
  }
  ~Deeper() {
    --evaluator.depth_;
    evaluator.line_ = line;
  }
  Evaluator& evaluator;
  int line;
};

Evaluator::Evaluator(const Tree& tree, const Limits& limits, std::time_t now)
    : tree_(tree), limits_(limits), now_(now) {}

void Evaluator::refuse(const std::string& message) {
  throw Error(fmt::format("template {}, line {}: {}", tree_.name, line_, message),
              ErrorKind::bad_file);
}

void Evaluator::refuse_undefined(const Value& v) {
  const std::string* name = v.missing_name();
  refuse(name ? fmt::format("'{}' is undefined", *name) : "an undefined value is used");
}

void Evaluator::charge(std::size_t amount) {
  steps_ += static_cast<std::int64_t>(std::min<std::size_t>(amount, 1u << 30));
  if (steps_ > limits_.steps)
    refuse(fmt::format("more than {} steps; the template does not end in reasonable time",
                       limits_.steps));
}

Value Evaluator::make_string(Text text) {
  charge(text.bytes.size() / 32 + text.runs.size());
  return Value::string(std::move(text));
}

Value Evaluator::to_string(const Value& v) {
  if (v.is(Kind::string)) return v;
  Text out;
  append_str(out, v);
  return make_string(std::move(out));
}

Text Evaluator::render(const std::vector<std::pair<std::string, Value>>& variables) {
  for (std::size_t i = 0; i < tree_.names.size(); ++i)
    for (const auto& [name, value] : variables)
      if (name == tree_.names[i]) root_.set(static_cast<int>(i), value);
  Text out;
  out_ = &out;
  try {
    execute(tree_.body);
  } catch (const Error& error) {
    // Errors from value helpers know no line.
    if (std::string_view(error.what()).starts_with("template " + tree_.name + ", line ")) throw;
    refuse(error.what());
  }
  return out;
}

void Evaluator::write(const Value& v) {
  append_str(*out_, v);
  if (v.is(Kind::string)) charge(v.bytes().size() / 32);
  if (out_->bytes.size() > limits_.output)
    refuse(fmt::format("the output is over {} bytes", limits_.output));
}

Evaluator::Flow Evaluator::execute(const std::vector<NodePtr>& body) {
  for (const NodePtr& n : body) {
    const Flow flow = execute(*n);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::execute(const Node& n) {
  switch (n.kind) {
    case N::data:
      write(n.value);
      return Flow::next;
    case N::break_loop:
      return Flow::break_loop;
    case N::continue_loop:
      return Flow::continue_loop;
    default:
      break;
  }
  const Deeper deeper(*this, n);
  switch (n.kind) {
    case N::output:
      write(evaluate(*n.kids[0]));
      return Flow::next;
    case N::branch:
      return execute(truthy(evaluate(*n.kids[0])) ? n.body : n.orelse);
    case N::loop:
      return execute_loop(n, evaluate(*n.kids[0]), nullptr);
    case N::set:
      assign(*n.target, evaluate(*n.kids[0]));
      return Flow::next;
    case N::set_block: {
      Value v = make_string(capture(n));
      assign(*n.target, n.kids[0] ? evaluate_filter(*n.kids[0], &v) : v);
      return Flow::next;
    }
    case N::filter_block: {
      Value v = make_string(capture(n));
      write(evaluate_filter(*n.kids[0], &v));
      return Flow::next;
    }
    case N::generation: {
      Text text = capture(n);
      for (Run& run : text.runs) run.mark.generation = true;
      write(make_string(std::move(text)));
      return Flow::next;
    }
    case N::macro: {
      Function* f = make_function(n.name, Value());
      f->macro = &n;
      f->scope = scope_;
      scope_->set(n.id, Value::function(f));
      return Flow::next;
    }
    case N::call_block:
      execute_call_block(n);
      return Flow::next;
    case N::with:
      return execute_with(n);
    default:
      refuse("an expression stands where a statement is expected");
  }
}

Scope* Evaluator::open_scope(bool captured, Scope& local) {
  Scope* scope = captured ? &scopes_.emplace_back() : &local;
  scope->parent = scope_;
  return scope;
}

// The body's output, in a scope of its own.
Text Evaluator::capture(const Node& n) {
  Scope local;
  Scope* saved = scope_;
  Text* saved_out = out_;
  Text text;
  scope_ = open_scope(n.captures, local);
  out_ = &text;
  const Flow flow = execute(n.body);
  out_ = saved_out;
  scope_ = saved;
  if (flow != Flow::next) refuse("break and continue cannot leave a captured block");
  return text;
}

Evaluator::Flow Evaluator::execute_with(const Node& n) {
  Scope local;
  std::vector<Value> values;
  for (const Parameter& p : n.params) values.push_back(evaluate(*p.fallback));
  Scope* saved = scope_;
  scope_ = open_scope(n.captures, local);
  for (std::size_t i = 0; i < values.size(); ++i) scope_->set(n.params[i].id, values[i]);
  const Flow flow = execute(n.body);
  scope_ = saved;
  return flow;
}

static int find_name(const Tree& tree, std::string_view name) {
  for (std::size_t i = 0; i < tree.names.size(); ++i)
    if (tree.names[i] == name) return static_cast<int>(i);
  return -1;
}

Evaluator::Flow Evaluator::execute_loop(const Node& n, const Value& over, Loop* outer) {
  charge(8);
  std::vector<Value> holder;
  const std::span<const Value> all = iterate(over, holder);
  Loop& loop = loops_.emplace_back();
  loop.node = n.recursive ? &n : nullptr;
  loop.scope = scope_;
  loop.depth = outer ? outer->depth + 1 : 0;
  Scope* const saved = scope_;
  if (n.kids[1]) {
    for (const Value& item : all) {
      Scope local;
      scope_ = open_scope(false, local);
      assign(*n.target, item);
      if (truthy(evaluate(*n.kids[1]))) loop.items.push_back(item);
      scope_ = saved;
    }
  } else {
    loop.items.assign(all.begin(), all.end());
  }
  charge(loop.items.size());
  static const std::string kLoop = "loop";
  const int id = find_name(tree_, kLoop);
  const bool keep = n.captures;
  Flow flow = Flow::next;
  for (loop.index = 0; loop.index < loop.items.size(); ++loop.index) {
    charge(1);
    Scope local;
    scope_ = open_scope(keep, local);
    assign(*n.target, loop.items[loop.index]);
    if (id >= 0) scope_->set(id, Value::loop(&loop));
    flow = execute(n.body);
    scope_ = saved;
    if (flow == Flow::break_loop) break;
  }
  const bool none = loop.items.empty();
  loop.items = {};
  return none ? execute(n.orelse) : Flow::next;
}

void Evaluator::assign(const Node& target, const Value& value) {
  if (target.kind == N::name) {
    scope_->set(target.id, value);
  } else if (target.kind == N::field) {
    const Value* space = scope_->find(target.id);
    if (!space || !space->is(Kind::space))
      refuse(fmt::format("'{}' is not a namespace", target.name));
    const std::string& field = target.names[0];
    if (field.starts_with("_"))
      refuse(fmt::format("the attribute '{}' may not start with an underscore", field));
    for (auto& [name, old] : space->as_space().items) {
      if (name != field) continue;
      old = value;
      return;
    }
    space->as_space().items.emplace_back(field, value);
  } else {
    std::vector<Value> holder;
    const auto items = iterate(value, holder);
    if (items.size() != target.kids.size()) {
      refuse(fmt::format("{} values cannot be unpacked into {} names", items.size(),
                         target.kids.size()));
    }
    for (std::size_t i = 0; i < items.size(); ++i) assign(*target.kids[i], items[i]);
  }
}

Value Evaluator::evaluate(const Node& n) {
  if (n.kind == N::constant) return n.value;
  if (n.kind == N::name) return evaluate_name(n);
  const Deeper deeper(*this, n);
  switch (n.kind) {
    case N::attribute: {
      Value v = get_attribute(evaluate(*n.kids[0]), n.name);
      return v.is(Kind::undefined) && !v.missing_name() ? Value::undefined(&n.name) : v;
    }
    case N::subscript: {
      const Value of = evaluate(*n.kids[0]);
      return get_item(of, evaluate(*n.kids[1]));
    }
    case N::slice: {
      const Value of = evaluate(*n.kids[0]);
      Value bounds[3];
      for (int i = 0; i < 3; ++i)
        if (n.kids[i + 1]) bounds[i] = evaluate(*n.kids[i + 1]);
      return slice(of, n.kids[1] ? &bounds[0] : nullptr, n.kids[2] ? &bounds[1] : nullptr,
                   n.kids[3] ? &bounds[2] : nullptr);
    }
    case N::call:
      return evaluate_call(n);
    case N::filter:
      return evaluate_filter(n, nullptr);
    case N::test: {
      const Value subject = evaluate(*n.kids[0]);
      return Value::boolean(apply_test(n.name, subject, evaluate_args(n.args)));
    }
    case N::negate:
      return binary("neg", evaluate(*n.kids[0]), Value::none());
    case N::plus:
      return binary("pos", evaluate(*n.kids[0]), Value::none());
    case N::invert:
      return Value::boolean(!truthy(evaluate(*n.kids[0])));
    case N::binary: {
      const Value a = evaluate(*n.kids[0]);
      return binary(n.name, a, evaluate(*n.kids[1]));
    }
    case N::concat:
      return evaluate_concat(n);
    case N::compare:
      return evaluate_compare(n);
    case N::both: {
      Value left = evaluate(*n.kids[0]);
      return truthy(left) ? evaluate(*n.kids[1]) : left;
    }
    case N::either: {
      Value left = evaluate(*n.kids[0]);
      return truthy(left) ? left : evaluate(*n.kids[1]);
    }
    case N::condition:
      if (truthy(evaluate(*n.kids[0]))) return evaluate(*n.kids[1]);
      return n.kids[2] ? evaluate(*n.kids[2]) : Value();
    default:
      return evaluate_literal(n);
  }
}

Value Evaluator::evaluate_name(const Node& n) {
  charge(1);
  if (const Value* v = scope_->find(n.id)) return *v;
  if (is_global(n.name)) return Value::function(make_function(n.name, Value()));
  return Value::undefined(&n.name);
}

Value Evaluator::evaluate_concat(const Node& n) {
  Text out;
  for (const NodePtr& kid : n.kids) append_str(out, evaluate(*kid));
  return make_string(std::move(out));
}

Value Evaluator::evaluate_compare(const Node& n) {
  Value left = evaluate(*n.kids[0]);
  for (std::size_t i = 0; i < n.names.size(); ++i) {
    Value right = evaluate(*n.kids[i + 1]);
    const std::string& op = n.names[i];
    bool holds;
    if (op == "==" || op == "!=") {
      holds = equal(left, right) == (op == "==");
    } else if (op == "in" || op == "not in") {
      holds = contains(right, left) == (op == "in");
    } else {
      if (left.is(Kind::undefined)) refuse_undefined(left);
      if (right.is(Kind::undefined)) refuse_undefined(right);
      const int c = compare(left, right);
      holds = op == "<" ? c < 0 : op == "<=" ? c <= 0 : op == ">" ? c > 0 : c >= 0;
    }
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Evaluator::evaluate_literal(const Node& n) {
  if (n.kind == N::dict) {
    Dict* dict = heap_.dict();
    for (std::size_t i = 0; i + 1 < n.kids.size(); i += 2) {
      const Value key = evaluate(*n.kids[i]);
      if (key.kind() > Kind::string &&
          !(key.is(Kind::list) && key.as_list().flavor == Flavor::tuple)) {
        refuse(fmt::format("a {} cannot be a key", type_name(key)));
      }
      dict->set(key, evaluate(*n.kids[i + 1]));
    }
    charge(n.kids.size() + 2);
    return Value::dict(dict);
  }
  List* list = heap_.list(n.kind == N::tuple ? Flavor::tuple : Flavor::list);
  for (const NodePtr& kid : n.kids) list->items.push_back(evaluate(*kid));
  charge(n.kids.size() + 2);
  return Value::list(list);
}

Args Evaluator::evaluate_args(const std::vector<Argument>& arguments) {
  Args args;
  for (const Argument& a : arguments) {
    Value v = evaluate(*a.value);
    if (a.spread == Argument::list) {
      std::vector<Value> holder;
      for (const Value& item : iterate(v, holder)) args.items.push_back(item);
    } else if (a.spread == Argument::dict) {
      if (!v.is(Kind::dict)) refuse("'**' needs a dict");
      for (const auto& [key, value] : v.as_dict().items) {
        if (!key.is(Kind::string)) refuse("'**' needs string keys");
        args.named.emplace_back(key.bytes(), value);
      }
    } else if (a.name.empty()) {
      args.items.push_back(std::move(v));
    } else {
      args.named.emplace_back(a.name, std::move(v));
    }
    charge(args.items.size() + args.named.size());
  }
  return args;
}

Value Evaluator::evaluate_filter(const Node& n, const Value* subject) {
  // In a chain without a subject (filter and set blocks) the innermost filter takes it.
  const Value value = n.kids[0]
                          ? (subject ? evaluate_filter(*n.kids[0], subject) : evaluate(*n.kids[0]))
                          : *subject;
  line_ = n.line;
  return apply_filter(n.name, value, evaluate_args(n.args));
}

Function* Evaluator::make_function(const std::string& name, Value self) {
  charge(4);
  Function& f = functions_.emplace_back();
  f.name = name;
  f.method = !self.is(Kind::undefined);
  f.self = std::move(self);
  return &f;
}

Value Evaluator::evaluate_call(const Node& n, const Value* caller) {
  const Node& callee = *n.kids[0];
  if (callee.kind == N::attribute) {
    const Value self = evaluate(*callee.kids[0]);
    if (self.is(Kind::undefined)) refuse_undefined(self);
    if (has_method(self, callee.name)) {
      const Args args = evaluate_args(n.args);
      line_ = n.line;
      return call_method(self, callee.name, args);
    }
    const Value f = get_attribute(self, callee.name);
    if (f.is(Kind::undefined))
      refuse(fmt::format("a {} has no method '{}'", type_name(self), callee.name));
    return call(f, evaluate_args(n.args));
  }
  if (callee.kind == N::name && !scope_->find(callee.id) && is_global(callee.name)) {
    const Args args = evaluate_args(n.args);
    line_ = n.line;
    return call_global(callee.name, args);
  }
  const Value f = evaluate(callee);
  if (f.is(Kind::undefined)) refuse_undefined(f);
  Args args = evaluate_args(n.args);
  if (caller) args.named.emplace_back("caller", *caller);
  line_ = n.line;
  return call(f, std::move(args));
}

Value Evaluator::call(const Value& f, Args args) {
  if (f.is(Kind::loop)) return recurse(f.as_loop(), args);
  if (!f.is(Kind::function)) refuse(fmt::format("a {} cannot be called", type_name(f)));
  Function& function = f.as_function();
  if (function.macro) return call_macro(function, std::move(args));
  if (function.method) return call_method(function.self, function.name, args);
  return call_global(function.name, args);
}

Value Evaluator::call_macro(Function& function, Args args) {
  const Node& n = *function.macro;
  Scope& scope = scopes_.emplace_back();
  charge(8);
  scope.parent = function.scope;
  std::size_t used = 0;
  if (args.items.size() > n.params.size()) {
    refuse(fmt::format("macro '{}' takes {} arguments, got {}", n.name, n.params.size(),
                       args.items.size()));
  }
  Scope* saved = scope_;
  Text* saved_out = out_;
  scope_ = &scope;
  for (std::size_t i = 0; i < n.params.size(); ++i) {
    const Parameter& p = n.params[i];
    if (i < args.items.size()) {
      scope.set(p.id, args.items[i]);
      continue;
    }
    const Value* given = args.get(args.items.size(), p.name);
    used += given != nullptr;
    scope.set(p.id, given        ? *given
                    : p.fallback ? evaluate(*p.fallback)
                                 : Value::undefined(&p.name));
  }
  for (const auto& [name, value] : args.named) {
    if (name != "caller") continue;
    used += 1;
    const int id = find_name(tree_, "caller");
    if (id >= 0) scope.set(id, value);
  }
  if (used != args.named.size())
    refuse(fmt::format("macro '{}' got a keyword argument that it does not take", n.name));
  Text text;
  out_ = &text;
  const Flow flow = execute(n.body);
  out_ = saved_out;
  scope_ = saved;
  if (flow != Flow::next) refuse("break and continue cannot leave a macro");
  return make_string(std::move(text));
}

void Evaluator::execute_call_block(const Node& n) {
  Function* f = make_function("caller", Value());
  f->macro = &n;
  f->scope = scope_;
  const Value caller = Value::function(f);
  write(evaluate_call(*n.kids[0], &caller));
}

Value Evaluator::recurse(Loop& loop, const Args& args) {
  if (!loop.node) refuse("loop(...) needs a loop marked 'recursive'");
  if (args.items.size() != 1) refuse("loop(...) takes one argument");
  Text text;
  Text* saved_out = out_;
  Scope* saved = scope_;
  out_ = &text;
  scope_ = loop.scope;
  execute_loop(*loop.node, args.items[0], &loop);
  scope_ = saved;
  out_ = saved_out;
  return make_string(std::move(text));
}

Value Evaluator::loop_field(Loop& loop, const std::string& name) {
  const auto index = static_cast<std::int64_t>(loop.index),
             length = static_cast<std::int64_t>(loop.items.size());
  if (name == "index") return Value::integer(index + 1);
  if (name == "index0") return Value::integer(index);
  if (name == "revindex") return Value::integer(length - index);
  if (name == "revindex0") return Value::integer(length - index - 1);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(index + 1 == length);
  if (name == "length") return Value::integer(length);
  if (name == "depth") return Value::integer(loop.depth + 1);
  if (name == "depth0") return Value::integer(loop.depth);
  if (name == "previtem" && index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return loop.items[loop.index + 1];
  return Value();
}

Value Evaluator::get_attribute(const Value& of, const std::string& name) {
  if (of.is(Kind::undefined)) refuse_undefined(of);
  if (of.is(Kind::loop)) {
    Value v = loop_field(of.as_loop(), name);
    if (!v.is(Kind::undefined) || !has_method(of, name)) return v;
  }
  if (has_method(of, name)) return Value::function(make_function(name, of));
  if (of.is(Kind::dict)) {
    if (const Value* v = of.as_dict().find(name)) return *v;
  } else if (of.is(Kind::space)) {
    for (const auto& [have, value] : of.as_space().items)
      if (have == name) return value;
  } else if (of.is(Kind::function) && of.as_function().macro && name == "name") {
    return Value::string(of.as_function().name);
  }
  return Value();
}

Value Evaluator::get_item(const Value& of, const Value& key) {
  if (of.is(Kind::undefined)) refuse_undefined(of);
  if (of.is(Kind::dict)) {
    if (const Value* v = of.as_dict().find(key)) return *v;
  } else if (of.is(Kind::list) && of.as_list().indexable() &&
             (key.is(Kind::integer) || key.is(Kind::boolean))) {
    const auto& items = of.as_list().items;
    const auto size = static_cast<std::int64_t>(items.size());
    const std::int64_t i = key.as_int() < 0 ? key.as_int() + size : key.as_int();
    return i >= 0 && i < size ? items[i] : Value();
  } else if (of.is(Kind::string) && (key.is(Kind::integer) || key.is(Kind::boolean))) {
    const std::int64_t i = key.as_int();
    const Value at = Value::integer(i), past = i == -1 ? Value::none() : Value::integer(i + 1);
    Value v = slice(of, &at, &past, nullptr);
    return v.bytes().empty() ? Value() : v;
  }
  return key.is(Kind::string) ? get_attribute(of, key.bytes()) : Value();
}

}  // namespace supersonic::text::jinja
