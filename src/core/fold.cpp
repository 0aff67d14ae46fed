// Folding: an operation may absorb producers that nobody else reads (matmul + matmul, matmul + accumulate). The rule itself
// belongs to the operation (Op::fold); this pass finds the places and checks that moving the producers down is safe.
#include "core/graph.h"

namespace supersonic {
namespace {

int handle(Value v) { return v.node * kMaxOutputs + v.output; }
Value from_handle(int h) { return {h / kMaxOutputs, h % kMaxOutputs}; }

FoldNode view_of(const Graph& g, int i) {
  const GNode& n = g.nodes[i];
  FoldNode f{n.op, n.attrs, {}, {}, n.out.empty() ? Spec{} : n.out[0]};
  for (const auto& v : n.in) {
    f.in.push_back(handle(v));
    f.in_specs.push_back(g.spec(v));
  }
  return f;
}

bool writes_an_input_between(const Graph& g, int producer, int consumer) {
  for (int i = producer + 1; i < consumer; ++i) {
    if (!g.is_effect(i)) continue;
    for (std::size_t k = 0; k < g.nodes[i].in.size(); ++k) {
      if (!(g.nodes[i].op->traits.writes >> k & 1)) continue;
      const Value target = g.base(g.nodes[i].in[k]);
      for (const auto& v : g.nodes[producer].in)
        if (g.base(v) == target) return true;
    }
  }
  return false;
}

}  // namespace

Graph fold_matmuls(const Graph& graph) {
  Graph g = graph;
  std::vector<int> readers(g.nodes.size());
  for (const auto& n : g.nodes)
    for (const auto& v : n.in) ++readers[v.node];
  for (const auto& r : g.roots) ++readers[r.value.node];
  for (int i = 0; i < static_cast<int>(g.nodes.size()); ++i) {
    if (!g.nodes[i].op->fold) continue;
    const FoldNode self = view_of(g, i);
    std::vector<FoldNode> storage(self.in.size());
    std::vector<const FoldNode*> producers(self.in.size());
    for (std::size_t k = 0; k < self.in.size(); ++k) {
      const int p = g.nodes[i].in[k].node;
      if (readers[p] != 1 || g.is_leaf(p) || g.is_effect(p) || g.is_view(p) || writes_an_input_between(g, p, i)) continue;
      storage[k] = view_of(g, p);
      producers[k] = &storage[k];
    }
    FoldNode result;
    if (!self.op || !g.nodes[i].op->fold({self, producers}, result)) continue;
    for (const auto& v : g.nodes[i].in) --readers[v.node];
    GNode& n = g.nodes[i];
    n.op = result.op;
    n.attrs = result.attrs;
    n.in.clear();
    for (int h : result.in) {
      n.in.push_back(from_handle(h));
      ++readers[n.in.back().node];
    }
    --i;  // it may fold again
  }
  drop_dead(g);
  return g;
}

}  // namespace supersonic
