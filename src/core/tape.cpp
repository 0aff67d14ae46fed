#include "core/tape.h"

#include <memory>

#include "core/autograd.h"
#include "core/executor.h"
#include "core/leaf.h"

namespace supersonic {
namespace {

thread_local Tape* current_tape = nullptr;

// Nodes come from a free list per thread: recording costs no allocation once warm.
struct Slab {
  std::vector<std::unique_ptr<Node[]>> blocks;
  std::vector<Node*> free;
  Node* take() {
    if (free.empty()) {
      constexpr int kBlock = 64;
      blocks.push_back(std::make_unique<Node[]>(kBlock));
      for (int i = kBlock; i-- > 0;) free.push_back(&blocks.back()[i]);
    }
    Node* n = free.back();
    free.pop_back();
    return n;
  }
};
Slab& slab() {
  // Never destroyed: handles in static objects may outlive every thread-local.
  thread_local Slab* s = new Slab;
  return *s;
}

}  // namespace

Node* Node::create() { return slab().take(); }

void Node::destroy(Node* n) {
  // Inputs are dropped one by one, so that a long chain of nodes does not recurse deeply.
  std::vector<Ref<Node>> pending;
  auto clear = [&](Node* node) {
    for (int i = 0; i < node->num_inputs; ++i) {
      Tensor input = std::move(node->inputs[i]);
      node->inputs[i] = Tensor();
      if (input.node() && input.node()->refs == 1) pending.emplace_back(input.node());
    }
    for (auto& s : node->storage) s = StorageRef();
    node->num_inputs = node->num_outputs = 0;
    node->region = 0;
    node->backward = false;
  };
  clear(n);
  slab().free.push_back(n);
  while (!pending.empty()) {
    Ref<Node> next = std::move(pending.back());
    pending.pop_back();
    if (next->refs == 1) clear(next.get());
  }
}

Tape& Tape::current() {
  if (!current_tape) current_tape = new Tape;  // the thread's outermost tape lives as long as the thread's handles may
  return *current_tape;
}

std::uint32_t Tape::open_region() { return ++regions_; }

void Tape::append(Ref<Node> node) { nodes_.push_back(std::move(node)); }

TapeScope::TapeScope() : outer_(&Tape::current()) {
  tape_.seq_ = outer_->seq_;
  tape_.captured_ = true;
  current_tape = &tape_;
}

TapeScope::~TapeScope() {
  outer_->seq_ = tape_.seq_;
  current_tape = outer_;
}

void Infer::output(const Shape& shape, DType dtype, const Format* format) {
  check(node.num_outputs < kMaxOutputs, "more than {} outputs", kMaxOutputs);
  node.outputs[node.num_outputs++] = Spec{shape, dtype, format};
}

void Infer::inputs(int count) const { inputs(count, count); }

void Infer::inputs(int least, int most) const {
  const int n = static_cast<int>(in.size());
  check(n >= least && n <= most, "takes {} to {} inputs, got {}", least, most, n);
  for (int i = 0; i < n; ++i) check(static_cast<bool>(in[i]), "input {} is empty", i);
}

void Infer::refuse(const std::string& message) const {
  std::string shapes;
  for (const auto& t : in) shapes += (shapes.empty() ? "" : ", ") + (t ? to_string(t.spec()) : std::string("empty"));
  fail(ErrorKind::failure, "{}: {} [inputs: {}; recorded at {}:{}]", op.name, message, shapes, where.file_name(),
       where.line());
}

Tensors record(const Op& op, const Attrs& attrs, Args in, Where where) {
  Ref<Node> node(Node::create());
  node->op = &op;
  node->attrs = attrs;
  node->where = where;
  Infer infer{op, attrs, in, *node, where};
  infer.check(in.size() <= kMaxInputs, "more than {} inputs", kMaxInputs);
  op.infer(infer);
  node->num_inputs = static_cast<std::uint16_t>(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) node->inputs[i] = in[i];
  Tape& tape = Tape::current();
  node->seq = tape.next_seq();
  node->region = tape.region();
  node->backward = in_backward();
  tape.append(node);
  Tensors out;
  for (int i = 0; i < node->num_outputs; ++i) out.emplace_back(node, i);
  if (!tape.captured() && !op.traits.view && eager_mode()) eval();
  return out;
}

Tensor from_storage(StorageRef storage, Where where) {
  Ref<Node> node(Node::create());
  node->op = &op<Leaf>();
  node->attrs = {};
  node->where = where;
  node->num_outputs = 1;
  node->outputs[0] = storage->spec;
  node->storage[0] = std::move(storage);
  node->seq = Tape::current().next_seq();
  return Tensor(std::move(node), 0);  // a leaf needs no place on the tape: whoever reads it holds it
}

}  // namespace supersonic
