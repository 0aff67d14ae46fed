// Chain fusion: elementwise nodes of one shape become one ChainProgram, in one forward pass. A group runs where its last member
// stood, so it may grow only until somebody outside reads one of its values, or an effect writes what it loads ("sealed").
#include <algorithm>
#include <set>

#include "core/graph.h"

namespace supersonic {
namespace {

struct Group {
  std::vector<int> members;
  bool sealed = false;
};

struct Fuser {
  const Graph& g;
  std::vector<Group> groups;
  std::vector<int> group_of;

  explicit Fuser(const Graph& graph) : g(graph), group_of(graph.nodes.size(), -1) {}

  void seal(Value v) {
    const int group = group_of[g.base(v).node];
    if (group >= 0) groups[group].sealed = true;
  }

  void seal_loads_of(const GNode& effect) {
    for (std::size_t k = 0; k < effect.in.size(); ++k) {
      if (!(effect.op->traits.writes >> k & 1)) continue;
      const Value target = g.base(effect.in[k]);
      for (auto& group : groups) {
        for (int m : group.members)
          for (const auto& v : g.nodes[m].in) group.sealed |= g.base(v) == target;
      }
    }
  }

  int external_loads(const std::vector<int>& members) const {
    std::set<std::pair<int, int>> loads;
    for (int m : members)
      for (const auto& v : g.nodes[m].in)
        if (std::find(members.begin(), members.end(), v.node) == members.end()) loads.insert({v.node, v.output});
    return static_cast<int>(loads.size());
  }

  void join(int i) {
    std::vector<int> merged = {i};
    std::vector<int> from;
    for (const auto& v : g.nodes[i].in) {
      const int c = group_of[v.node];
      if (c < 0 || groups[c].sealed || std::find(from.begin(), from.end(), c) != from.end()) continue;
      if (!(g.spec(v).shape == g.nodes[i].out[0].shape)) continue;
      std::vector<int> both = merged;
      both.insert(both.end(), groups[c].members.begin(), groups[c].members.end());
      if (static_cast<int>(both.size()) > kMaxChainInstructions || external_loads(both) > kMaxChainLoads) continue;
      merged = std::move(both);
      from.push_back(c);
    }
    for (const auto& v : g.nodes[i].in) {
      const int c = group_of[v.node];
      if (c < 0 || std::find(from.begin(), from.end(), c) == from.end()) seal(v);
    }
    std::sort(merged.begin(), merged.end());
    for (int c : from) groups[c].members.clear();
    // A chain holds its values in floating point: what is stored as whole numbers is read back from there.
    groups.push_back({merged, !is_float(g.nodes[i].out[0].dtype)});
    for (int m : merged) group_of[m] = static_cast<int>(groups.size()) - 1;
  }

  void run(bool fuse) {
    for (int i = 0; i < static_cast<int>(g.nodes.size()); ++i) {
      const GNode& n = g.nodes[i];
      if (g.is_leaf(i)) continue;
      if (n.op->map && fuse) {
        join(i);
        continue;
      }
      for (const auto& v : n.in) seal(v);
      if (n.op->map) {
        groups.push_back({{i}, true});
        group_of[i] = static_cast<int>(groups.size()) - 1;
      } else if (n.op->traits.effect) {
        seal_loads_of(n);
      }
    }
  }
};

// One chain node for the members (ascending), reading `rewriter`'s values.
void emit_chain(const Graph& g, const std::vector<int>& members, const std::vector<bool>& stored, Rewriter& rewriter) {
  GNode node;
  node.chain = std::make_shared<ChainProgram>();
  ChainProgram& chain = *node.chain;
  const GNode& last = g.nodes[members.back()];
  node.op = last.op;
  node.where = last.where;
  node.backward = last.backward;
  node.region = last.region;
  std::unordered_map<Value, std::int16_t, ValueHash> number;
  for (int m : members) {
    for (const auto& v : g.nodes[m].in) {
      if (std::find(members.begin(), members.end(), v.node) != members.end()) continue;
      if (number.try_emplace(v, static_cast<std::int16_t>(node.in.size())).second) node.in.push_back(rewriter.map(v));
    }
  }
  chain.loads = static_cast<int>(node.in.size());
  for (int m : members) {
    ChainInstr instr;
    instr.op = g.nodes[m].op;
    instr.attrs = g.nodes[m].attrs;
    for (std::size_t k = 0; k < g.nodes[m].in.size(); ++k) instr.src[k] = number.at(g.nodes[m].in[k]);
    number[{m, 0}] = static_cast<std::int16_t>(chain.loads + chain.instrs.size());
    chain.instrs.push_back(instr);
  }
  std::vector<int> outputs;
  for (int m : members) {
    if (!stored[m]) continue;
    chain.stores.push_back(number.at({m, 0}));
    node.out.push_back(g.nodes[m].out[0]);
    outputs.push_back(m);
    node.away |= g.nodes[m].away;
  }
  const int at = rewriter.add(std::move(node));
  for (std::size_t o = 0; o < outputs.size(); ++o) rewriter.set({outputs[o], 0}, {at, static_cast<int>(o)});
}

}  // namespace

Graph fuse_chains(const Graph& graph, bool fuse) {
  Fuser fuser(graph);
  fuser.run(fuse);
  std::vector<bool> stored(graph.nodes.size());
  for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i)
    for (const auto& v : graph.nodes[i].in)
      if (fuser.group_of[i] < 0 || fuser.group_of[v.node] != fuser.group_of[i]) stored[v.node] = true;
  for (const auto& r : graph.roots) stored[r.value.node] = true;

  Rewriter rewriter(graph);
  for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i) {
    const int group = fuser.group_of[i];
    if (group < 0) {
      rewriter.keep(i);
      continue;
    }
    const auto& members = fuser.groups[group].members;
    if (members.back() != i) continue;
    const auto stores = std::count_if(members.begin(), members.end(), [&](int m) { return stored[m]; });
    if (stores <= kMaxChainStores) {
      emit_chain(graph, members, stored, rewriter);
      continue;
    }
    const std::vector<bool> all(graph.nodes.size(), true);
    for (int m : members) emit_chain(graph, {m}, all, rewriter);
  }
  return rewriter.finish();
}

std::string to_string(const ChainProgram& program) {
  std::string text;
  for (std::size_t i = 0; i < program.instrs.size(); ++i) {
    if (i) text += "; ";
    text += fmt::format("v{} = {}(", program.loads + i, program.instrs[i].op->name);
    for (int k = 0; k < 3 && program.instrs[i].src[k] >= 0; ++k) text += fmt::format("{}v{}", k ? ", " : "", program.instrs[i].src[k]);
    text += ")";
  }
  return text;
}

}  // namespace supersonic
