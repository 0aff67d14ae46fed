// JSON text ⇄ template values: a strict reader for data from outside and Python's json.dumps for
// the tojson filter.
#pragma once
#include <string>
#include <string_view>

#include "text/jinja_value.h"

namespace supersonic::text {

struct JsonOptions {
  Mark mark = {kFromData};  // origin of every string and number in the document
  int max_depth = 64;
};
// Reads exactly one value. Throws Error(bad_file) that names the byte offset ("at byte N: …"). A
// repeated key keeps its last value; integers beyond 64 bits become floats; a lone surrogate
// becomes U+FFFD.
Value parse_json(std::string_view json, Heap& heap, const JsonOptions& options = {});

struct JsonLayout {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool has_indent = false;
  std::string indent;
  std::string item_separator = ", ";  // "," when there is an indent
  std::string key_separator = ": ";
};
// json.dumps(v). Bytes of strings keep their origin; punctuation counts as the template's.
void append_json(Text& out, const Value& v, const JsonLayout& layout, int depth = 0);

}  // namespace supersonic::text
