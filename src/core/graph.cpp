#include "core/graph.h"

#include <unordered_set>

#include "core/leaf.h"

namespace supersonic {

Strides contiguous_strides(const Shape& shape) {
  Strides s{};
  std::int64_t step = 1;
  for (int i = shape.rank; i-- > 0;) {
    s[i] = step;
    step *= shape[i];
  }
  return s;
}

bool Operand::contiguous() const {
  std::int64_t step = 1;
  for (int i = spec.shape.rank; i-- > 0;) {
    if (spec.shape[i] != 1 && strides[i] != step) return false;
    step *= spec.shape[i];
  }
  return true;
}

std::uint64_t Policy::key() const {
  std::uint64_t h = budget * 0x9e3779b97f4a7c15ull;
  for (std::uint64_t v : {static_cast<std::uint64_t>(taken), std::uint64_t(remat_cheap), std::uint64_t(checkpoint_regions + 1), std::uint64_t(offload), std::uint64_t(least),
                          std::uint64_t(fuse), std::uint64_t(prepare), std::uint64_t(reuse),
                          static_cast<std::uint64_t>(compute)})
    h = (h ^ v) * 0x9e3779b97f4a7c15ull + (h >> 29);
  return h;
}

Value Graph::base(Value v) const {
  while (v && is_view(v.node)) v = nodes[v.node].in[0];
  return v;
}

Layout Layouts::of(const Graph& graph, Value v) const {
  auto it = map_.find(v);
  return it != map_.end() ? it->second : Layout{v, 0, contiguous_strides(graph.spec(v).shape)};
}

bool view_layout(const Graph& graph, const GNode& node, const Layouts& layouts, Layout& out) {
  const Layout in = layouts.of(graph, node.in[0]);
  ViewLayout to;
  if (!node.op->layout(node.attrs, graph.spec(node.in[0]), {in.offset, in.strides}, node.out[0], to)) return false;
  out = {in.base, to.offset, to.strides};
  return true;
}

int Rewriter::keep(int i) {
  GNode node = old_.nodes[i];
  for (auto& v : node.in) v = map(v);
  const int outputs = static_cast<int>(node.out.size());
  const int j = add(std::move(node));
  for (int o = 0; o < outputs; ++o) set({i, o}, {j, o});
  return j;
}

Graph Rewriter::finish() {
  for (const auto& r : old_.roots) graph_.roots.push_back({map(r.value), r.storage});
  return std::move(graph_);
}

namespace {

struct Importer {
  Graph graph;
  std::unordered_map<const Node*, int> index;                   // of whole nodes
  std::unordered_map<const Storage*, int> leaves;
  std::unordered_map<std::uint32_t, std::uint32_t> regions;     // recorded number -> 1, 2, …

  Value leaf(const StorageRef& storage) {
    auto [it, fresh] = leaves.try_emplace(storage.get(), static_cast<int>(graph.nodes.size()));
    if (fresh) {
      GNode g;
      g.op = &op<Leaf>();
      g.out = {storage->spec};
      g.storage = storage;
      g.place = storage->place;
      graph.nodes.push_back(std::move(g));
    }
    return {it->second, 0};
  }

  Value value(const Tensor& t) {
    if (const auto& s = t.node()->storage[t.output()]) return leaf(s);
    auto it = index.find(t.node());
    CHECK(it != index.end(), "{}: recorded at {}:{} outside of what is being planned", t.node()->op->name,
          t.node()->where.file_name(), t.node()->where.line());
    return {it->second, t.output()};
  }

  void node(Node* n) {
    GNode g;
    g.op = n->op;
    g.attrs = n->attrs;
    g.origin = n;
    g.where = n->where;
    g.region = n->region ? regions.try_emplace(n->region, static_cast<std::uint32_t>(regions.size()) + 1).first->second : 0;
    g.backward = n->backward;
    for (int i = 0; i < n->num_inputs; ++i) g.in.push_back(value(n->inputs[i]));
    for (int i = 0; i < n->num_outputs; ++i) g.out.push_back(n->outputs[i]);
    for (int i = 0; n->op->traits.effect && i < n->num_inputs; ++i) {
      CHECK(!(n->op->traits.writes >> i & 1) || graph.is_leaf(graph.base(g.in[i]).node),
            "{}: input {} is written, so it must be a storage or a view of one [recorded at {}:{}]", n->op->name, i,
            n->where.file_name(), n->where.line());
    }
    index[n] = g.id = static_cast<int>(graph.nodes.size());
    graph.nodes.push_back(std::move(g));
  }
};

}  // namespace

Graph import_nodes(std::span<const Ref<Node>> nodes, std::span<const Tensor> roots,
                   std::span<const StorageRef> results) {
  std::unordered_set<const Node*> live;
  for (const auto& t : roots) live.insert(t.node());
  std::vector<bool> wanted(nodes.size());
  for (std::size_t i = nodes.size(); i-- > 0;) {
    Node* n = nodes[i].get();
    wanted[i] = n->op->traits.effect || live.count(n);
    if (!wanted[i]) continue;
    for (int k = 0; k < n->num_inputs; ++k) live.insert(n->inputs[k].node());
  }
  Importer importer;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (wanted[i]) importer.node(nodes[i].get());
  for (std::size_t i = 0; i < roots.size(); ++i) {
    const Value v = importer.value(roots[i]);  // first: it may add a leaf
    importer.graph.roots.push_back({v, results[i]});
  }
  return std::move(importer.graph);
}

void drop_dead(Graph& graph) {
  std::vector<bool> live(graph.nodes.size());
  for (const auto& r : graph.roots) live[r.value.node] = true;
  for (int i = static_cast<int>(graph.nodes.size()); i-- > 0;) {
    if (graph.is_effect(i)) live[i] = true;
    if (!live[i]) continue;
    for (const auto& v : graph.nodes[i].in) live[v.node] = true;
  }
  Rewriter rewriter(graph);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i)
    if (live[i]) rewriter.keep(static_cast<int>(i));
  graph = rewriter.finish();
}

}  // namespace supersonic
