// Graph: the planner's working copy of a recorded stretch, in record order. Passes rewrite it: dead code, recomputation,
// expansion of operations without a kernel, folding, chain fusion, kernel selection, prepared forms, copies between places.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/backend.h"
#include "core/policy.h"

namespace supersonic {

struct Value {
  int node = -1, output = 0;
  bool operator==(const Value&) const = default;
  explicit operator bool() const { return node >= 0; }
};
struct ValueHash {
  std::size_t operator()(const Value& v) const { return static_cast<std::size_t>(v.node) * kMaxOutputs + v.output; }
};

struct GNode {
  const Op* op = nullptr;
  Attrs attrs;
  std::vector<Value> in;
  std::vector<Spec> out;
  StorageRef storage;             // leaf
  Node* origin = nullptr;         // the recorded node whose results these are; null for what a pass made
  Where where;
  std::uint32_t region = 0;       // of a forward node
  bool backward = false;          // recorded by a gradient sweep
  bool dead = false;
  int id = -1;                    // position of the recorded node that this is or repeats
  bool away = false;              // its results wait in host memory for backward
  std::shared_ptr<ChainProgram> chain;
  const Form* form = nullptr;     // this node prepares `form` of its input
  Place place;                    // of its outputs
  LaneKind lane = LaneKind::compute;
  bool copy = false;              // moves the bytes of input 0 to another place
  std::shared_ptr<Problem> problem;  // set with the kernel
  const Kernel* kernel = nullptr;
};

// Where a result must end up after the plan.
struct Root {
  Value value;
  StorageRef storage;
};

struct Graph {
  std::vector<GNode> nodes;       // in execution order
  std::vector<Root> roots;

  const Spec& spec(Value v) const { return nodes[v.node].out[v.output]; }
  bool is_leaf(int i) const { return static_cast<bool>(nodes[i].storage); }
  bool is_effect(int i) const { return nodes[i].op && nodes[i].op->traits.effect; }
  bool is_view(int i) const { return nodes[i].op && nodes[i].op->traits.view; }
  Value base(Value v) const;      // through views
};

// Rebuilds a graph node by node; values of the old graph are mapped to the new one.
class Rewriter {
 public:
  explicit Rewriter(const Graph& old) : old_(old), map_(old.nodes.size()) {
    for (std::size_t i = 0; i < old.nodes.size(); ++i)
      for (int o = 0; o < kMaxOutputs; ++o) map_[i][o] = Value{};
  }
  Value map(Value v) const { return v ? map_[v.node][v.output] : v; }
  void set(Value old_value, Value new_value) { map_[old_value.node][old_value.output] = new_value; }
  int add(GNode node) {
    graph_.nodes.push_back(std::move(node));
    return static_cast<int>(graph_.nodes.size()) - 1;
  }
  // Copies node i of the old graph, inputs mapped.
  int keep(int i);
  Graph& graph() { return graph_; }
  Graph finish();  // roots mapped

 private:
  const Graph& old_;
  std::vector<std::array<Value, kMaxOutputs>> map_;
  Graph graph_;
};

// --- passes, in the order in which a plan runs them ---
Graph import_nodes(std::span<const Ref<Node>> nodes, std::span<const Tensor> roots,
                   std::span<const StorageRef> results);
void drop_dead(Graph& graph);
struct RematChoice {
  bool cheap = true;
  std::vector<bool> again = {};  // by region number: recomputed in backward
  std::vector<bool> kept = {};   // by node id: not recomputed even so
};
std::uint32_t count_regions(const Graph& graph);  // regions are numbered 1, 2, … in the order of their first node
Graph rematerialise(const Graph& graph, const RematChoice& choice);
Graph expand(Graph graph, Backend& backend, const Policy& policy);
Graph fold_matmuls(const Graph& graph);
Graph fuse_chains(const Graph& graph, bool fuse);
Graph select_kernels(const Graph& graph, Backend& backend, const Policy& policy);
// How operands that lie in another place come to where kernels work (offload.cpp).
struct CopyChoice {
  int ahead = 1;  // how many regions early a copy may start
};
Graph place_copies(Graph graph, Backend& backend, const CopyChoice& choice);

// The problem that node i poses, operands contiguous unless `strides` says otherwise.
Problem problem_of(const Graph& graph, int i, Backend& backend, const Policy& policy);
// First kernel of the backend that takes the problem; null: none, reasons appended to `why`.
const Kernel* find_kernel(Backend& backend, const Problem& problem, std::string* why);

// Layout of a value: base buffer, element offset, strides.
struct Layout {
  Value base;
  std::int64_t offset = 0;
  Strides strides{};
};
// The layout of every value of the graph (bases: themselves).
class Layouts {
 public:
  Layout of(const Graph& graph, Value v) const;
  void set(Value v, const Layout& layout) { map_[v] = layout; }

 private:
  std::unordered_map<Value, Layout, ValueHash> map_;
};
// Applies one view operation to its input's layout; false: needs a contiguous copy first.
bool view_layout(const Graph& graph, const GNode& node, const Layouts& layouts, Layout& out);

}  // namespace supersonic
