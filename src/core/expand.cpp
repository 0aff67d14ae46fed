// Expansion: an operation for which the backend has no kernel is replaced by its definition, again and again until every node
// has one. What has neither is an error that lists each candidate kernel's reason.
#include "core/leaf.h"
#include "core/tape.h"
#include "core/autograd.h"
#include "core/graph.h"

namespace supersonic {

Problem problem_of(const Graph& graph, int i, Backend& backend, const Policy& policy) {
  const GNode& n = graph.nodes[i];
  Problem p;
  p.op = n.op;
  p.attrs = n.attrs;
  p.chain = n.chain.get();
  p.compute = policy.compute;
  p.threads = backend.threads();
  for (const auto& v : n.in) {
    const Spec& spec = graph.spec(v);
    p.in.push_back({spec, contiguous_strides(spec.shape), true, nullptr});
  }
  for (const auto& spec : n.out) p.out.push_back({spec, contiguous_strides(spec.shape), true, nullptr});
  return p;
}

const Kernel* find_kernel(Backend& backend, const Problem& problem, std::string* why) {
  const Kernel* best = nullptr;
  for (const Kernel* k : backend.kernels()) {
    if (k->op != problem.op || (best && best->priority >= k->priority)) continue;
    const char* reason = k->reject ? k->reject(problem) : nullptr;
    if (!reason) {
      best = k;
    } else if (why) {
      *why += fmt::format("\n  {}: {}", k->name, reason);
    }
  }
  return best;
}

namespace {

struct Expander {
  Backend& backend;
  const Policy& policy;
  Graph out;
  int depth = 0;

  bool runs_as_is(const GNode& n) const { return n.storage || n.op->traits.view || n.op->map; }

  // Appends `node` (inputs already values of `out`), expanded as needed; returns the values of its outputs.
  std::vector<Value> emit(GNode node) {
    out.nodes.push_back(node);
    const int at = static_cast<int>(out.nodes.size()) - 1;
    std::vector<Value> values;
    for (std::size_t o = 0; o < node.out.size(); ++o) values.push_back({at, static_cast<int>(o)});
    if (runs_as_is(node)) return values;
    std::string why;
    if (find_kernel(backend, problem_of(out, at, backend, policy), &why)) return values;
    CHECK(node.op->define, "{}: no kernel of backend '{}' takes this, and it has no definition{} [recorded at {}:{}]",
          node.op->name, backend.name(), why, node.where.file_name(), node.where.line());
    CHECK(depth < 16, "{}: its definition expands without end", node.op->name);
    out.nodes.pop_back();
    return splice(node);
  }

  std::vector<Value> splice(const GNode& node) {
    ++depth;
    TapeScope scope;
    Tensors inputs;
    std::unordered_map<const Node*, Value> placeholder;
    for (const auto& v : node.in) {
      Ref<Node> p(Node::create());
      p->op = &op<Leaf>();
      p->num_outputs = 1;
      p->outputs[0] = out.spec(v);
      p->seq = scope.tape().next_seq();
      placeholder[p.get()] = v;
      inputs.emplace_back(std::move(p), 0);
    }
    const Tensors results = node.op->define(node.attrs, inputs);
    std::unordered_map<const Node*, std::vector<Value>> done;
    auto value_of = [&](const Tensor& t) -> Value {
      if (auto it = placeholder.find(t.node()); it != placeholder.end()) return it->second;
      return done.at(t.node())[t.output()];
    };
    for (const auto& n : scope.tape().nodes()) {
      GNode g;
      g.op = n->op;
      g.attrs = n->attrs;
      g.where = node.where;
      g.region = node.region;
      g.backward = node.backward;
      g.away = node.away;
      for (int i = 0; i < n->num_inputs; ++i) g.in.push_back(value_of(n->inputs[i]));
      for (int o = 0; o < n->num_outputs; ++o) g.out.push_back(n->outputs[o]);
      done[n.get()] = emit(std::move(g));
    }
    std::vector<Value> values;
    for (std::size_t o = 0; o < node.out.size(); ++o) {
      if (o >= results.size() || !results[o]) {  // the definition leaves out what only a kernel can give
        values.push_back(Value{});
        continue;
      }
      CHECK(results[o].spec() == node.out[o], "{}: its definition gives {} for output {}, which is {}", node.op->name,
            to_string(results[o].spec()), o, to_string(node.out[o]));
      values.push_back(value_of(results[o]));
    }
    --depth;
    return values;
  }
};

}  // namespace

Graph expand(Graph graph, Backend& backend, const Policy& policy) {
  Expander e{backend, policy, {}, 0};
  std::vector<std::vector<Value>> map(graph.nodes.size());
  auto mapped = [&](Value v) {
    const Value m = map[v.node][v.output];
    CHECK(m, "{}: backend '{}' has no kernel for it, and its definition leaves out output {}, which is read [recorded at {}:{}]",
          graph.nodes[v.node].op->name, backend.name(), v.output, graph.nodes[v.node].where.file_name(),
          graph.nodes[v.node].where.line());
    return m;
  };
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    GNode node = graph.nodes[i];
    for (auto& v : node.in) v = mapped(v);
    map[i] = e.emit(std::move(node));
  }
  for (const auto& r : graph.roots) e.out.roots.push_back({mapped(r.value), r.storage});
  drop_dead(e.out);
  return std::move(e.out);
}

}  // namespace supersonic
