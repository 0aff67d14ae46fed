// Recomputation: backward nodes that read the inside of a region get clones of the nodes that made it, placed just before the
// first reader and shared within the region. The user's function is not called again. A clone must read the same version of
// every storage as its original; where an effect in between writes one, the original is kept.
#include <map>

#include "core/graph.h"

namespace supersonic {
namespace {

struct Remat {
  const Graph& old;
  const RematChoice& choice;
  Rewriter rewriter;
  std::map<std::pair<int, std::uint32_t>, int> clones;  // (original, backward region) -> new node
  std::unordered_map<const Storage*, std::vector<int>> writes;

  Remat(const Graph& graph, const RematChoice& c) : old(graph), choice(c), rewriter(graph) {
    for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i) {
      if (!graph.is_effect(i)) continue;
      const GNode& n = graph.nodes[i];
      for (std::size_t k = 0; k < n.in.size(); ++k) {
        if (!(n.op->traits.writes >> k & 1)) continue;
        const Value base = graph.base(n.in[k]);
        if (graph.is_leaf(base.node)) writes[graph.nodes[base.node].storage.get()].push_back(i);
      }
    }
  }

  bool written_between(int leaf, int from, int to) const {
    auto it = writes.find(old.nodes[leaf].storage.get());
    if (it == writes.end()) return false;
    for (int w : it->second)
      if (w > from && w < to) return true;
    return false;
  }

  bool recomputable(int i, int at) const {
    const GNode& n = old.nodes[i];
    if (n.backward || old.is_leaf(i) || n.op->traits.effect) return false;
    if (n.id >= 0 && n.id < static_cast<int>(choice.kept.size()) && choice.kept[n.id]) return false;
    const bool checkpointed = n.region != 0 && n.region < choice.again.size() && choice.again[n.region];
    if (!checkpointed && !(choice.cheap && n.op->traits.cheap) && !n.op->traits.view) return false;
    for (const auto& v : n.in) {
      const Value base = old.base(v);
      if (old.is_leaf(base.node) && written_between(base.node, i, at)) return false;
    }
    return true;
  }

  Value recomputed(Value v, std::uint32_t region, int at) {
    if (!recomputable(v.node, at) || old.nodes[v.node].region != region) return rewriter.map(v);
    auto [it, fresh] = clones.try_emplace({v.node, region}, -1);
    if (fresh) {
      GNode clone = old.nodes[v.node];
      for (auto& in : clone.in) in = recomputed(in, region, at);
      clone.backward = true;
      clone.origin = nullptr;
      const int made = rewriter.add(std::move(clone));
      clones[{v.node, region}] = made;
      return {made, v.output};
    }
    return {it->second, v.output};
  }

  Graph run() {
    for (int i = 0; i < static_cast<int>(old.nodes.size()); ++i) {
      if (!old.nodes[i].backward) {
        rewriter.keep(i);
        continue;
      }
      GNode node = old.nodes[i];
      for (auto& v : node.in) v = recomputed(v, node.region, i);
      const int outputs = static_cast<int>(node.out.size());
      const int j = rewriter.add(std::move(node));
      for (int o = 0; o < outputs; ++o) rewriter.set({i, o}, {j, o});
    }
    return rewriter.finish();
  }
};

}  // namespace

std::uint32_t count_regions(const Graph& graph) {
  std::uint32_t n = 0;
  for (const auto& node : graph.nodes) n = std::max(n, node.region);
  return n;
}

Graph rematerialise(const Graph& graph, const RematChoice& choice) {
  Graph result = Remat(graph, choice).run();
  drop_dead(result);
  return result;
}

}  // namespace supersonic
