// The syntax tree. One node type: what the fields mean for each kind stands beside it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "text/jinja_value.h"

namespace supersonic::text::jinja {

enum class N : std::uint8_t {
  // expressions
  constant,   // value
  name,       // name, id
  attribute,  // kids[0] . name
  subscript,  // kids[0] [ kids[1] ]
  slice,      // kids[0] [ kids[1] : kids[2] : kids[3] ]; a missing bound is null
  call,       // kids[0] ( args )
  filter,     // kids[0] | name ( args ); kids[0] is null in a filter or set block
  test,       // kids[0] is name ( args )
  negate,     // - kids[0]
  plus,       // + kids[0]
  invert,     // not kids[0]
  binary,     // kids[0] name kids[1]
  concat,     // kids joined by ~
  compare,    // kids[0] names[0] kids[1] names[1] …
  both,       // kids[0] and kids[1]
  either,     // kids[0] or kids[1]
  condition,  // kids[1] if kids[0] else kids[2]; a missing else is null
  list,       // kids
  tuple,      // kids
  dict,       // kids: key, value, key, value
  field,      // name . names[0] as a target: a namespace's attribute
  // statements
  data,    // value
  output,  // kids[0]
  branch,  // kids[0]; body; orelse (elif nests)
  loop,    // target, kids[0]: what is walked, kids[1]: condition or null; body; orelse; recursive
  set,     // target, kids[0]
  set_block,     // target, kids[0]: filter or null; body
  filter_block,  // kids[0]; body
  macro,         // name, id, params, defaults; body
  call_block,    // kids[0]: the call; params, defaults; body
  with,          // params, defaults; body
  generation,    // body
  break_loop,
  continue_loop,
};

struct Node;
using NodePtr = std::unique_ptr<Node>;

struct Argument {
  std::string name;  // empty: positional
  NodePtr value;
  enum Spread : std::uint8_t { none, list, dict } spread = none;
};

struct Parameter {
  std::string name;
  int id;
  NodePtr fallback;  // null: none
};

struct Node {
  N kind;
  int line;
  int id = -1;            // interned name
  bool captures = false;  // a macro is defined inside: its scope must outlive the block
  bool recursive = false;
  std::string name;
  std::vector<std::string> names;
  Value value;
  NodePtr target;
  std::vector<NodePtr> kids;
  std::vector<Argument> args;
  std::vector<Parameter> params;
  std::vector<NodePtr> body, orelse;
};

struct Tree {
  std::string name;  // of the template, for messages
  std::vector<NodePtr> body;
  std::vector<std::string> names;  // by id
};

// Throws Error(bad_file) with the template's name and line.
Tree parse(std::string_view source, const std::string& name);

}  // namespace supersonic::text::jinja
