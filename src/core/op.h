// Op: the static description of an operation. Its address is its identity. An operation is declared once, in src/ops, as a
// plain struct of attributes with static members; make_op<T> (op_record.h) turns the struct into this record, and the build
// generates the list of all records from the folder.
//
//   struct Name {                       // attributes: plain data, at most 48 bytes
//     static void infer(Infer& i);      // checks inputs, states output shapes and dtypes
//     static Tensors define(const Name&, Args in);                      // optional: the meaning, from smaller operations
//     static Grads backward(const Name&, const BackwardArgs&);          // optional: else the definition is differentiated
//     static constexpr Traits traits{...};                              // optional
//     static std::vector<Case> cases();                                 // what the generated tests run
//     static bool fold(const FoldArgs&, FoldNode& out);                 // optional: absorbs its producers
//     static bool layout(...);                                          // views only
//     template <class V> static V map(const Name&, V...);               // elementwise operations only
//   };
//   OP(Name);
#pragma once
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/tensor.h"

namespace supersonic {

using Args = std::span<const Tensor>;
using Grads = std::vector<Tensor>;  // one per input; empty tensor: no gradient

// What infer() sees and fills.
struct Infer {
  const Op& op;
  const Attrs& attrs;
  Args in;
  Node& node;
  Where where;

  const Spec& spec(int i) const { return in[i].spec(); }
  const Shape& shape(int i) const { return in[i].shape(); }
  void output(const Shape& shape, DType dtype, const Format* format = nullptr);
  // Fails with "<op>: <message>" and the recording line unless the condition holds.
  template <class... T>
  void check(bool ok, fmt::format_string<T...> format, T&&... args) const {
    if (!ok) [[unlikely]] refuse(fmt::format(format, std::forward<T>(args)...));
  }
  void inputs(int count) const;
  void inputs(int least, int most) const;
  [[noreturn]] void refuse(const std::string& message) const;
};

struct BackwardArgs {
  Args in, out, dy;  // dy[i] is empty when nothing depends on output i
  const std::vector<bool>& need;
};

struct Alias {
  int output, input;
};
struct Traits {
  bool view = false;    // metadata only
  bool effect = false;  // writes the storage behind input 0 (and those named by `writes`)
  bool cheap = false;   // recomputed in backward rather than kept
  unsigned writes = 1;  // effect: bit i set when the storage behind input i is written
  Alias may_alias[2] = {{-1, -1}, {-1, -1}};  // output may take the input's buffer
};

// One input of a generated test case: how to fill it.
struct CaseInput {
  Shape shape;
  enum Fill { normal, positive, index, low, high, constant, line } fill = normal;
  double a = 0, b = 0;           // index: values in [a, b); low/high: key ranges of a packed batch; line: a + b i
  const char* format = nullptr;  // quantized matrix
  enum Kind { data, f32, i32 } kind = data;  // data: takes the case's dtype
};
struct Case {
  std::vector<CaseInput> inputs;
  Attrs attrs;
  std::string name = {};
  bool bf16 = true;         // also run with bf16 data
  bool differences = true;  // small enough for finite differences
  double tolerance = 1;     // factor on the dtype's tolerance
};

// What fold() sees of a node: its inputs, and the producer of an input that nobody else reads.
struct FoldNode {
  const Op* op = nullptr;
  Attrs attrs;
  std::vector<int> in;  // opaque handles of values
  std::vector<Spec> in_specs;
  Spec out;
};
struct FoldArgs {
  const FoldNode& node;
  std::span<const FoldNode* const> producers;  // null: not a lone intermediate
};

using Strides = std::array<std::int64_t, kMaxRank>;  // in elements
Strides contiguous_strides(const Shape& shape);
// How a view lies over its base: element offset and strides.
struct ViewLayout {
  std::int64_t offset = 0;
  Strides strides{};
};

struct Op {
  std::string_view name;
  Traits traits;
  bool map = false;
  int attr_bytes = 0;
  void (*infer)(Infer&) = nullptr;
  Tensors (*define)(const Attrs&, Args) = nullptr;
  Grads (*backward)(const Attrs&, const BackwardArgs&) = nullptr;
  std::vector<Case> (*cases)() = nullptr;
  // Absorbs producers into one node (matmul + matmul, matmul + accumulate); false: nothing to fold.
  bool (*fold)(const FoldArgs&, FoldNode& out) = nullptr;
  // Views: the layout of the result from that of the input; false: the input must be made contiguous first.
  bool (*layout)(const Attrs&, const Spec& in, const ViewLayout& from, const Spec& out, ViewLayout& to) = nullptr;
};

template <class T>
const Op& op();  // specialised by the generated registration
std::span<const Op* const> all_ops();
#define OP(Name)           \
  template <>              \
  const Op& op<Name>()

// Recording: validates, infers, appends to the thread's tape. Throws Error with op, argument, shapes and the caller's line.
Tensors record(const Op& op, const Attrs& attrs, Args in, Where where);
template <class A>
Tensors record(const A& a, std::initializer_list<Tensor> in, Where where) {
  return record(op<A>(), Attrs::of(a), Args(in.begin(), in.size()), where);
}
template <class A>
Tensor record1(const A& a, std::initializer_list<Tensor> in, Where where) {
  return record(a, in, where)[0];
}

// Leaf reading (and, for effects, naming) a storage.
Tensor from_storage(StorageRef storage, Where where = Where::current());

}  // namespace supersonic
