// Horizontal fusion: two groups of one shape that read the same operands, and of which neither feeds the other, become one chain,
// so that what both read is read once. The joined group runs at one place between the two, after all that it reads and before all
// that reads it, so the earlier group may move down and the later one up, past work of others.
//
// The peak must not grow by that. Of the values that the two groups read and make, the bytes that live while another unit between
// them runs may not increase, and the joined step may not hold more than one of its neighbours held before. What no group touches
// lives as long as ever, and what of it lives at the joined step lives at both neighbours, so no step needs more than some step did
// (the offsets that placement finds may still leave other gaps).
#include <algorithm>
#include <climits>

#include "core/fuse.h"

namespace supersonic {
namespace {

struct Siblings {
  const Graph& g;
  Fusion& f;
  std::vector<int> position;                                         // in f.order, of the unit that runs a node
  std::unordered_map<Value, std::vector<int>, ValueHash> readers;    // nodes, views too
  std::unordered_map<Value, std::vector<int>, ValueHash> users;      // nodes that read a value itself or through views
  std::unordered_map<Value, std::vector<int>, ValueHash> writers;    // effects, by the leaf that they write
  std::unordered_map<Value, bool, ValueHash> wanted;                 // results of the plan

  Siblings(const Graph& graph, Fusion& fusion) : g(graph), f(fusion), position(graph.nodes.size(), -1) {
    for (int i = 0; i < static_cast<int>(g.nodes.size()); ++i) {
      const GNode& n = g.nodes[i];
      for (std::size_t k = 0; k < n.in.size(); ++k) {
        readers[n.in[k]].push_back(i);
        if (!g.is_view(i)) users[g.base(n.in[k])].push_back(i);
        if (g.is_effect(i) && (n.op->traits.writes >> k & 1)) writers[g.base(n.in[k])].push_back(i);
      }
    }
    for (const auto& r : g.roots) wanted[g.base(r.value)] = true;
    number();
  }

  void number() {
    for (int p = 0; p < static_cast<int>(f.order.size()); ++p) {
      const Unit& u = f.order[p];
      if (u.group < 0) position[u.node] = p;
      else
        for (int m : f.groups[u.group]) position[m] = p;
    }
  }

  template <class List>
  static const std::vector<int>& at(const List& list, Value v) {
    static const std::vector<int> none;
    const auto it = list.find(v);
    return it == list.end() ? none : it->second;
  }

  std::vector<Value> loads_of(int group) const {
    std::vector<Value> loads;
    for (int m : f.groups[group])
      for (const auto& v : g.nodes[m].in)
        if (f.group_of[v.node] != group && std::find(loads.begin(), loads.end(), v) == loads.end()) loads.push_back(v);
    return loads;
  }
  int stores_of(int group) const {
    return static_cast<int>(std::count_if(f.groups[group].begin(), f.groups[group].end(), [&](int m) { return f.stored[m]; }));
  }
  bool in_fp64(int group) const {
    const auto& members = f.groups[group];
    return std::any_of(members.begin(), members.end(), [&](int m) {
      const GNode& n = g.nodes[m];
      return n.out[0].dtype == DType::f64 || std::any_of(n.in.begin(), n.in.end(), [&](Value v) { return g.spec(v).dtype == DType::f64; });
    });
  }

  // A candidate: groups a before b, and all that they read and make.
  struct Pair {
    int a, b;
    std::vector<Value> loads, touched;  // touched: whole values that may live shorter or longer
    int joined_at = -1;                 // runs after this position of the order
  };

  bool alike(int a, int b) const {
    const GNode &x = g.nodes[f.groups[a].back()], &y = g.nodes[f.groups[b].back()];
    return x.out[0].shape == y.out[0].shape && x.backward == y.backward && x.region == y.region && in_fp64(a) == in_fp64(b);
  }

  bool gather(Pair& pair) const {
    pair.loads = loads_of(pair.a);
    std::int64_t saved = 0;
    for (const auto& v : loads_of(pair.b)) {
      if (f.group_of[v.node] == pair.a) return false;
      if (std::find(pair.loads.begin(), pair.loads.end(), v) == pair.loads.end()) pair.loads.push_back(v);
      else if (g.spec(g.base(v)).shape.numel() >= g.spec(v).shape.numel()) saved += g.spec(v).shape.numel();  // not a broadcast row
    }
    const std::size_t members = f.groups[pair.a].size() + f.groups[pair.b].size();
    if (saved == 0 || members > kMaxChainInstructions || static_cast<int>(pair.loads.size()) > kMaxChainLoads ||
        stores_of(pair.a) + stores_of(pair.b) > kMaxChainStores)
      return false;
    for (const auto& v : pair.loads) {
      const Value base = g.base(v);
      if (g.is_leaf(base.node)) continue;
      if (std::find(pair.touched.begin(), pair.touched.end(), base) != pair.touched.end()) return false;  // two views of one value
      pair.touched.push_back(base);
    }
    for (int group : {pair.a, pair.b})
      for (int m : f.groups[group])
        if (f.stored[m]) pair.touched.push_back({m, 0});
    return true;
  }

  // The positions after which the joined group may run; empty when first > last.
  struct Window {
    int first, last;
  };
  Window window(const Pair& pair) const {
    const int pa = position[f.groups[pair.a][0]], pb = position[f.groups[pair.b][0]];
    int low = pa, high = pb + 1;
    for (const auto& v : loads_of(pair.b)) {
      if (!g.is_leaf(v.node)) low = std::max(low, position[v.node]);
      for (int e : at(writers, g.base(v)))
        if (position[e] < pb) low = std::max(low, position[e]);
    }
    for (const auto& v : loads_of(pair.a))
      for (int e : at(writers, g.base(v)))
        if (position[e] > pa) high = std::min(high, position[e]);
    for (int m : f.groups[pair.a])
      for (int r : at(readers, {m, 0}))
        if (f.group_of[r] != pair.a) high = std::min(high, position[r]);
    return {low, high - 1};
  }

  // Time runs in halves: position p is 2p, and the joined group runs at 2 joined_at + 1.
  int time(const Pair& pair, int node, bool joined) const {
    const int group = f.group_of[node];
    if (joined && group >= 0 && (group == pair.a || group == pair.b)) return 2 * pair.joined_at + 1;
    return 2 * position[node];
  }
  struct Life {
    int first, last;
    bool covers(int t) const { return first <= t && t <= last; }
  };
  Life life(const Pair& pair, Value v, bool joined) const {
    Life l{time(pair, v.node, joined), INT_MIN};
    for (int r : at(users, v)) l.last = std::max(l.last, time(pair, r, joined));
    if (wanted.count(v)) l.last = INT_MAX;
    return l;
  }

  // The bytes of results of a chain at time t that take the place of operands which die in it.
  std::int64_t in_place(const Pair& pair, int t, bool joined) const {
    std::vector<Value> dying;
    std::int64_t bytes = 0;
    for (const auto& v : pair.loads)
      if (!g.is_leaf(v.node) && !g.is_view(v.node) && life(pair, v, joined).last == t) dying.push_back(v);
    for (const auto& v : pair.touched) {
      if (life(pair, v, joined).first != t || wanted.count(v)) continue;
      const auto it = std::find_if(dying.begin(), dying.end(), [&](Value d) {
        return g.spec(d).shape == g.spec(v).shape && size_of(g.spec(d).dtype) == size_of(g.spec(v).dtype);
      });
      if (it == dying.end()) continue;
      bytes += static_cast<std::int64_t>(bytes_of(g.spec(v)));
      dying.erase(it);
    }
    return bytes;
  }

  // Whether the unit at a position may write a result over an operand that dies in it.
  bool overwrites(int p) const {
    const Unit& u = f.order[p];
    return u.group >= 0 || g.nodes[u.node].op->traits.may_alias[0].output >= 0;
  }

  // How many bytes more live at time `after` in the new order than at time `before` in the old one. A result of the plan may be
  // written to a storage, outside of the arena: then living shorter gains nothing. What died in another unit's hands may have
  // been overwritten there.
  std::int64_t growth(const Pair& pair, int after, int before) const {
    const Unit& other = f.order[before / 2];
    const bool overwritten = other.group != pair.a && other.group != pair.b && overwrites(before / 2);
    std::int64_t bytes = 0;
    for (const auto& v : pair.touched) {
      const Life now = life(pair, v, true), then = life(pair, v, false);
      const bool gone = overwritten && then.last == before && now.last != after;
      const bool lives = now.covers(after), lived = then.covers(before) && !gone;
      if (lives && !lived) bytes += static_cast<std::int64_t>(bytes_of(g.spec(v)));
      if (lived && !lives && !wanted.count(v)) bytes -= static_cast<std::int64_t>(bytes_of(g.spec(v)));
    }
    return bytes - in_place(pair, after, true) + in_place(pair, before, false);
  }

  bool keeps_the_peak(const Pair& pair) const {
    const int pa = position[f.groups[pair.a][0]], pb = position[f.groups[pair.b][0]];
    const int here = 2 * pair.joined_at + 1;
    if (growth(pair, here, here - 1) > 0 && (pair.joined_at == pb || growth(pair, here, here + 1) > 0)) return false;
    for (int p = pa + 1; p < pb; ++p)
      if (growth(pair, 2 * p, 2 * p) > 0) return false;
    return true;
  }

  void join(const Pair& pair) {
    auto& members = f.groups[pair.a];
    members.insert(members.end(), f.groups[pair.b].begin(), f.groups[pair.b].end());
    std::sort(members.begin(), members.end());
    for (int m : members) f.group_of[m] = pair.a;
    f.groups[pair.b].clear();
    std::vector<Unit> order;
    for (int p = 0; p < static_cast<int>(f.order.size()); ++p) {
      if (f.order[p].group < 0 || (f.order[p].group != pair.a && f.order[p].group != pair.b)) order.push_back(f.order[p]);
      if (p == pair.joined_at) order.push_back({-1, pair.a});
    }
    f.order = std::move(order);
    number();
  }

  bool try_join(int a, int b) {
    Pair pair{a, b, {}, {}};
    if (!alike(a, b) || !gather(pair)) return false;
    const Window w = window(pair);
    // Where the later group stood, if that may be; else as late or as early as may be.
    for (int at : {w.last, w.first}) {
      if (w.first > w.last) break;
      pair.joined_at = at;
      if (!keeps_the_peak(pair)) continue;
      join(pair);
      return true;
    }
    return false;
  }

  // Earlier groups that read an operand of group b, the nearest first.
  std::vector<int> candidates(int b) const {
    std::vector<int> found;
    const int pb = position[f.groups[b][0]];
    for (const auto& v : loads_of(b))
      for (int r : at(readers, v))
        if (const int a = f.group_of[r]; a >= 0 && position[r] < pb && std::find(found.begin(), found.end(), a) == found.end()) found.push_back(a);
    std::sort(found.begin(), found.end(), [&](int x, int y) { return position[f.groups[x][0]] > position[f.groups[y][0]]; });
    return found;
  }

  void run() {
    // A join may make room for another, so a group tries again after each.
    for (int b = 0; b < static_cast<int>(f.groups.size()); ++b) {
      if (f.groups[b].empty()) continue;
      for (int a : candidates(b)) {
        if (!try_join(a, b)) continue;
        b = a - 1;
        break;
      }
    }
  }
};

}  // namespace

void fuse_siblings(const Graph& graph, Fusion& fusion) { Siblings(graph, fusion).run(); }

}  // namespace supersonic
