// Kernel selection: resolves views to strides, chooses each node's kernel, makes operands contiguous where a kernel asks for it,
// and inserts each prepared form (int8 rows, say) once for all its readers.
#include <map>

#include "core/graph.h"

namespace supersonic {
namespace {

struct Selector {
  const Graph& g;
  Backend& backend;
  const Policy& policy;
  Rewriter rewriter;
  Layouts layouts;                                                  // of new values
  std::unordered_map<Value, Value, ValueHash> contiguous_copies;    // new value -> copy
  std::map<std::pair<std::pair<int, int>, const Form*>, Value> forms;

  Layout layout_of(Value v) {
    return layouts.of(rewriter.graph(), v);
  }
  const Spec& spec(Value v) { return rewriter.graph().spec(v); }
  Operand operand(Value v) { return {spec(v), layout_of(v).strides, true, nullptr}; }

  Value contiguous(Value v, const GNode& reader) {
    if (operand(v).contiguous()) return v;
    auto [it, fresh] = contiguous_copies.try_emplace(v);
    if (!fresh) return it->second;
    GNode copy;
    copy.chain = std::make_shared<ChainProgram>();
    copy.chain->loads = 1;
    copy.chain->stores = {0};
    copy.in = {v};
    copy.out = {spec(v)};
    copy.where = reader.where;
    copy.region = reader.region;
    copy.backward = reader.backward;
    copy.op = reader.op;
    const Value made{add_with_kernel(std::move(copy)), 0};
    contiguous_copies[v] = made;
    return made;
  }

  Value prepared(Value v, const Form* form, const GNode& reader) {
    auto [it, fresh] = forms.try_emplace({{v.node, v.output}, form});
    if (!fresh) return it->second;
    GNode node;
    node.op = reader.op;
    node.where = reader.where;
    node.region = reader.region;
    node.backward = reader.backward;
    node.form = form;
    node.in = {v};
    node.out = {Spec{Shape{static_cast<std::int64_t>(form->bytes(spec(v)))}, DType::u8, nullptr}};
    node.problem = std::make_shared<Problem>();
    node.problem->in = {operand(v)};
    it->second = {rewriter.add(std::move(node)), 0};
    return it->second;
  }

  int add_with_kernel(GNode node) {
    Problem p;
    p.op = node.op;
    p.attrs = node.attrs;
    p.chain = node.chain.get();
    p.compute = policy.compute;
    p.threads = backend.threads();
    for (const auto& v : node.in) p.in.push_back(operand(v));
    for (const auto& s : node.out) p.out.push_back({s, contiguous_strides(s.shape), true, nullptr});
    if (node.chain) {
      node.kernel = backend.chain_kernel(*node.chain);
    } else {
      std::string why;
      node.kernel = find_kernel(backend, p, &why);
      CHECK(node.kernel, "{}: no kernel of backend '{}' takes this{} [recorded at {}:{}]", node.op->name, backend.name(),
            why, node.where.file_name(), node.where.line());
    }
    for (std::size_t k = 0; k < node.in.size(); ++k) {
      const bool written = node.op->traits.effect && !node.chain && (node.op->traits.writes >> k & 1);
      if (!node.kernel->strided && !p.in[k].contiguous()) {
        CHECK(!written, "{}: writes through input {}, which must be contiguous", node.op->name, k);
        node.in[k] = contiguous(node.in[k], node);
        p.in[k] = operand(node.in[k]);
      }
    }
    if (policy.prepare && node.kernel->form) {
      for (std::size_t k = 0; k < node.in.size(); ++k) {
        const Form* form = node.kernel->form(p, static_cast<int>(k));
        if (!form) continue;
        node.in[k] = prepared(node.in[k], form, node);
        p.in[k].form = form;
      }
    }
    node.problem = std::make_shared<Problem>(std::move(p));
    return rewriter.add(std::move(node));
  }

  void forget_writes(const GNode& effect) {
    // A form or copy made of a storage's old contents must not serve readers of the new ones.
    for (std::size_t k = 0; k < effect.in.size(); ++k) {
      if (!(effect.op->traits.writes >> k & 1)) continue;
      const Value target = layout_of(effect.in[k]).base;
      std::erase_if(forms, [&](auto& f) { return layout_of({f.first.first.first, f.first.first.second}).base == target; });
      std::erase_if(contiguous_copies, [&](auto& c) { return layout_of(c.first).base == target; });
    }
  }

  void view(int i) {
    GNode node = g.nodes[i];
    node.in[0] = rewriter.map(node.in[0]);
    Layout out;
    if (!view_layout(rewriter.graph(), node, layouts, out)) {
      node.in[0] = contiguous(node.in[0], node);
      CHECK(view_layout(rewriter.graph(), node, layouts, out), "{}: not a view of a contiguous tensor",
            node.op->name);
    }
    const int at = rewriter.add(std::move(node));
    rewriter.set({i, 0}, {at, 0});
    layouts.set({at, 0}, out);
  }

  Graph run() {
    for (int i = 0; i < static_cast<int>(g.nodes.size()); ++i) {
      if (g.is_leaf(i)) {
        rewriter.keep(i);
        continue;
      }
      if (g.is_view(i) && !g.nodes[i].chain) {
        view(i);
        continue;
      }
      GNode node = g.nodes[i];
      for (auto& v : node.in) v = rewriter.map(v);
      const int outputs = static_cast<int>(node.out.size());
      if (node.op->traits.effect && !node.chain) forget_writes(node);
      const int at = add_with_kernel(std::move(node));
      for (int o = 0; o < outputs; ++o) rewriter.set({i, o}, {at, o});
    }
    return rewriter.finish();
  }
};

}  // namespace

Graph select_kernels(const Graph& graph, Backend& backend, const Policy& policy) {
  return Selector{graph, backend, policy, Rewriter(graph), {}, {}, {}}.run();
}

}  // namespace supersonic
