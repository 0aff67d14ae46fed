// Values of the template language, with Python's semantics, and strings whose bytes remember where
// they came from.
//
// A Mark says which source produced a byte: the template (trusted: may spell special tokens),
// message k of the conversation, or other data. Marks travel through every string operation, so a
// rendered chat knows exactly which bytes are the user's and which are message k's. Strings are
// shared and immutable; containers belong to a Heap, so cyclic data that a template builds is freed
// with it.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace supersonic::text {

constexpr std::uint32_t kFromTemplate = 0;        // trusted
constexpr std::uint32_t kFromData = 0xFFFFFFFFu;  // tools, keyword arguments: untrusted, no message
struct Mark {
  std::uint32_t source = kFromTemplate;  // k >= 1: message k - 1 of the conversation
  bool generation = false;               // inside a {% generation %} block
  bool operator==(const Mark&) const = default;
};
struct Run {
  std::uint32_t end;  // byte offset one past the run
  Mark mark;
};

// A byte string (UTF-8) and the origin of each byte. Runs cover it without gaps; adjacent runs
// differ.
struct Text {
  std::string bytes;
  std::vector<Run> runs;
  bool safe =
      false;  // passed through |safe: what `+` joins to it is HTML-escaped, as Python's Markup does

  void append(std::string_view more, Mark mark);
  void append(const Text& other) { append(other, 0, other.bytes.size()); }
  void append(const Text& other, std::size_t begin, std::size_t end);
  Mark mark_at(std::size_t offset) const;
};

enum class Kind : std::uint8_t {
  undefined,
  none,
  boolean,
  integer,
  real,
  string,
  list,
  dict,
  space,
  function,
  loop
};

struct List;
struct Dict;
struct Namespace;
struct Function;
struct Loop;

class Value {
 public:
  Value() : integer_(0) {}
  static Value undefined(
      const std::string* name = nullptr);  // the name must outlive the value; for messages
  static Value none();
  static Value boolean(bool b, Mark mark = {});
  static Value integer(std::int64_t i, Mark mark = {});
  static Value real(double d, Mark mark = {});
  static Value string(std::string_view bytes, Mark mark = {});
  static Value string(Text text);
  static Value list(List* list) { return Value(Kind::list, list); }
  static Value dict(Dict* dict) { return Value(Kind::dict, dict); }
  static Value space(Namespace* space) { return Value(Kind::space, space); }
  static Value function(Function* function) { return Value(Kind::function, function); }
  static Value loop(Loop* loop) { return Value(Kind::loop, loop); }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_number() const {
    return kind_ == Kind::integer || kind_ == Kind::real || kind_ == Kind::boolean;
  }
  Mark mark() const { return mark_; }  // of a scalar
  bool as_bool() const { return boolean_; }
  std::int64_t as_int() const { return kind_ == Kind::boolean ? boolean_ : integer_; }
  double as_real() const { return kind_ == Kind::real ? real_ : static_cast<double>(as_int()); }
  const Text& text() const { return *text_; }
  const std::string& bytes() const { return text_->bytes; }
  List& as_list() const { return *static_cast<List*>(object_); }
  Dict& as_dict() const { return *static_cast<Dict*>(object_); }
  Namespace& as_space() const { return *static_cast<Namespace*>(object_); }
  Function& as_function() const { return *static_cast<Function*>(object_); }
  Loop& as_loop() const { return *static_cast<Loop*>(object_); }
  const void* object() const { return object_; }
  const std::string* missing_name() const { return kind_ == Kind::undefined ? name_ : nullptr; }

 private:
  Value(Kind kind, void* object) : object_(object), kind_(kind) {}
  union {
    bool boolean_;
    std::int64_t integer_;
    double real_;
    void* object_;
    const std::string* name_;
  };
  std::shared_ptr<const Text> text_;
  Mark mark_;
  Kind kind_ = Kind::undefined;
};

// What Python would have here; `sequence` has a length and can be indexed.
enum class Flavor : std::uint8_t { list, tuple, range, view, generator };
struct List {
  std::vector<Value> items;
  Flavor flavor = Flavor::list;
  bool frozen = false;  // came with the data: templates may not change it
  bool indexable() const { return flavor <= Flavor::range; }
  bool sized() const { return flavor != Flavor::generator; }
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // insertion order
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
  void set(const Value& key, Value value);

 private:
  std::vector<std::uint32_t> slots_;  // open addressing over string keys, built above 16 entries
  void index();
  std::size_t probe(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

// Owns the containers of a document or of one rendering.
class Heap {
 public:
  List* list(Flavor flavor = Flavor::list);
  Dict* dict();
  Namespace* space();

 private:
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> spaces_;
};

// Python's behaviour. Each throws Error(bad_file) when values nest deeper than kMaxValueDepth.
constexpr int kMaxValueDepth = 100;
bool truthy(const Value& v);
bool equal(const Value& a, const Value& b, int depth = 0);
// -1, 0, 1; throws when the two cannot be ordered
int compare(const Value& a, const Value& b, int depth = 0);
void append_str(Text& out, const Value& v);                  // str(v)
void append_repr(Text& out, const Value& v, int depth = 0);  // repr(v)
std::string format_real(double value);                       // repr(float)
std::string_view type_name(const Value& v);                  // "str", "list", … for messages
[[noreturn]] void type_error(const std::string& message);

}  // namespace supersonic::text
