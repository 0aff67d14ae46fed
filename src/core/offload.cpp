// Copies between places. Kernels work in the backend's compute place; a storage that lies elsewhere (weights in host memory beside
// a GPU) is copied in before its use and the copy dies with its last reader. Time is divided into epochs: the stretch of nodes of one
// checkpoint region in one direction. Every epoch that reads a storage has its own copy, started up to `ahead` epochs early, so
// that the transfer of one region overlaps the work of another. An effect on such a storage runs on the copy, which is sent
// back at once. Activations that the policy sends away wait in host memory until backward reads them again.
#include <algorithm>
#include <map>

#include "core/graph.h"

namespace supersonic {
namespace {

constexpr std::size_t kLeastBoundary = 4096;  // bytes: what is smaller stays
constexpr double kLead = 1e-4, kSlow = 1.3;   // seconds, and times the estimate: for copies that are slower than they should be

struct Copier {
  const Graph& g;
  Backend& backend;
  const CopyChoice& choice;
  const int n;
  const Place compute;
  Rewriter rewriter;
  std::vector<int> epoch;                                        // of every node; one more for the results
  std::vector<int> epoch_begin;                                  // first node of an epoch
  std::vector<Value> base_of;                                    // of output 0, through views
  std::vector<bool> foreign;                                     // leaves in another place
  std::unordered_map<int, std::vector<int>> written;             // leaf's handle -> effects on it
  std::unordered_map<int, int> shared;                           // leaf's handle -> epoch of the one copy
  std::unordered_map<Value, int, ValueHash> away;                // activation sent to host -> its last forward reader
  std::unordered_map<Value, Value, ValueHash> host_copy;
  std::map<std::pair<int, int>, std::vector<int>> uses;          // (source value's handle, epoch) -> readers, ascending
  std::vector<std::vector<std::pair<Value, int>>> fetch_before;  // node -> (source, epoch)
  std::map<std::pair<int, int>, Value> here, views;              // (handle, epoch) -> value in the compute place
  std::vector<std::vector<int>> roots_after;                     // node -> results that are sent home as soon as they exist

  Copier(const Graph& graph, Backend& b, const CopyChoice& c)
      : g(graph), backend(b), choice(c), n(static_cast<int>(graph.nodes.size())), compute(b.compute_place()), rewriter(graph) {}

  static int handle(Value v) { return v.node * kMaxOutputs + v.output; }
  bool is_alias(int i) const { return g.is_view(i) && !g.nodes[i].chain && !g.nodes[i].form; }
  Value base(Value v) const { return is_alias(v.node) ? base_of[v.node] : v; }
  bool foreign_leaf(Value v) const { return foreign[v.node]; }

  void find_epochs() {
    epoch.resize(n + 1);
    std::uint32_t region = 0;
    bool backward = false;
    for (int i = 0; i < n; ++i) {
      const GNode& node = g.nodes[i];
      if (epoch_begin.empty()) epoch_begin.push_back(0);
      if (!g.is_leaf(i) && !is_alias(i)) {
        const bool other = (node.region != 0 && region != 0 && node.region != region) || node.backward != backward;
        if (other) epoch_begin.push_back(i);
        if (other || node.region != 0) region = node.region;
        backward = node.backward;
      }
      epoch[i] = static_cast<int>(epoch_begin.size()) - 1;
    }
    epoch[n] = n ? epoch[n - 1] : 0;
  }

  void find_sources() {
    base_of.resize(n);
    foreign.resize(n);
    for (int i = 0; i < n; ++i) {
      base_of[i] = is_alias(i) ? base(g.nodes[i].in[0]) : Value{i, 0};
      foreign[i] = g.is_leaf(i) && !(g.nodes[i].storage->place == compute);
    }
    for (int i = 0; i < n; ++i) {
      for (std::size_t k = 0; writes(i) && k < g.nodes[i].in.size(); ++k)
        if (writes(i) >> k & 1) written[handle(base(g.nodes[i].in[k]))].push_back(i);
    }
    std::unordered_map<Value, std::array<int, 3>, ValueHash> reads;  // last forward, first backward, last of all
    for (int i = 0; i < n; ++i) {
      if (is_alias(i)) continue;
      for (const auto& v : g.nodes[i].in) {
        const Value b = base(v);
        if (foreign_leaf(b)) use(b, i);
        auto [it, fresh] = reads.try_emplace(b, std::array<int, 3>{-1, n, -1});
        if (g.nodes[i].backward) {
          it->second[1] = std::min(it->second[1], i);
        } else {
          it->second[0] = i;
        }
        it->second[2] = i;
      }
    }
    for (const auto& r : g.roots) {
      reads.erase(base(r.value));
      if (is_alias(r.value.node) && foreign_leaf(base(r.value))) use(base(r.value), n);
    }
    for (const auto& [v, read] : reads) {
      const auto [last_forward, first_backward, last] = read;
      const GNode& maker = g.nodes[v.node];
      if (!maker.away || maker.backward || first_backward == n || first_backward < last_forward) continue;
      const int leaves_at = std::max(last_forward, v.node);
      if (epoch[first_backward] < epoch[leaves_at] + 2 || bytes_of(g.spec(v)) < kLeastBoundary) continue;
      away[v] = leaves_at;
    }
    for (int i = 0; i < n; ++i) {
      if (is_alias(i)) continue;
      for (const auto& v : g.nodes[i].in)
        if (auto it = away.find(base(v)); it != away.end() && i > it->second) use(base(v), i);
    }
  }

  // Whole numbers that nothing writes (positions, ranges, labels) are small and stay once they are here; everything else has a copy
  // for each epoch.
  int copy_of(Value source, int reader) {
    const GNode& leaf = g.nodes[source.node];
    if (!leaf.storage || leaf.out[0].format || is_float(leaf.out[0].dtype) || written.count(handle(source))) return epoch[reader];
    return shared.try_emplace(handle(source), epoch[reader]).first->second;
  }

  void use(Value source, int reader) {
    auto& list = uses[{handle(source), copy_of(source, reader)}];
    if (list.empty() || list.back() != reader) list.push_back(reader);
  }

  // When the compute lane should reach each node, in seconds, if nothing made it wait; all 0 without estimates.
  std::vector<double> clock() const {
    std::vector<double> at(n + 1);
    for (int i = 0; i < n; ++i)
      at[i + 1] = at[i] + (g.nodes[i].problem && !g.nodes[i].copy ? backend.seconds(*g.nodes[i].problem) : 0);
    return at;
  }

  // The last node before which a copy may start so that it is there when `reader` runs and the lane is free for the copies after
  // it: `free` is when the next one starts.
  int in_time(Value source, int reader, const std::vector<double>& at, double free) const {
    const double latest = std::min(at[reader] - kLead, free) - kSlow * backend.copy_seconds(bytes_of(g.spec(source)));
    const auto it = std::upper_bound(at.begin(), at.begin() + reader, latest);
    return std::max(0, static_cast<int>(it - at.begin()) - 1);
  }

  // A copy starts just in time by the backend's estimates, or without them at the first node of an earlier epoch: never before that,
  // and not before its bytes are final.
  void schedule() {
    fetch_before.resize(n + 1);
    const std::vector<double> reached = clock();
    const bool timed = reached[n] > 0;
    double free = reached[n];
    std::vector<std::pair<int, std::pair<int, int>>> last_first;  // first reader, key
    for (const auto& [key, readers] : uses) last_first.push_back({readers.front(), key});
    std::sort(last_first.begin(), last_first.end(), std::greater<>());
    for (const auto& [reader, key] : last_first) {
      const Value source{key.first / kMaxOutputs, key.first % kMaxOutputs};
      int at = reader;
      if (choice.ahead > 0) {
        at = std::min(at, epoch_begin[std::max(0, key.second - choice.ahead)]);
        if (timed) at = std::max(at, in_time(source, reader, reached, free));
        free = reached[at];
      }
      if (auto it = away.find(source); it != away.end()) at = std::max(at, it->second + 1);
      if (const auto it = written.find(key.first); it != written.end())
        for (int w : it->second)
          if (w < reader) at = std::max(at, w + 1);
      fetch_before[at].push_back({source, key.second});
    }
    for (auto& list : fetch_before) std::reverse(list.begin(), list.end());  // the first reader's copy first
  }

  unsigned writes(int i) const {
    const GNode& node = g.nodes[i];
    return g.is_effect(i) && !node.chain && !node.form ? node.op->traits.writes : 0;
  }

  Value copy(Value from, const Spec& spec, Place to, LaneKind lane, const GNode& beside) {
    GNode node;
    node.copy = true;
    node.in = {from};
    node.out = {spec};
    node.place = to;
    node.lane = lane;
    node.where = beside.where;
    node.region = beside.region;
    node.backward = beside.backward;
    node.problem = std::make_shared<Problem>();
    node.problem->in = node.problem->out = {{spec, contiguous_strides(spec.shape), true, nullptr}};
    return {rewriter.add(std::move(node)), 0};
  }

  void fetch(Value source, int e) {
    const Value from = foreign_leaf(source) ? rewriter.map(source) : host_copy.at(source);
    const int reader = uses.at({handle(source), e}).front();
    here[{handle(source), e}] = copy(from, g.spec(source), compute, LaneKind::copy_in, g.nodes[std::min(reader, n - 1)]);
  }

  bool moved(Value b, int reader) const {
    if (foreign_leaf(b)) return true;
    const auto it = away.find(b);
    return it != away.end() && reader > it->second;
  }

  // What `reader` reads for v: a copy, or a view of one, or v itself.
  Value resolve(Value v, int reader) {
    const Value b = base(v);
    if (!moved(b, reader)) return rewriter.map(v);
    const int e = copy_of(b, reader);
    if (b == v) return here.at({handle(v), e});
    if (auto it = views.find({handle(v), e}); it != views.end()) return it->second;
    GNode view = g.nodes[v.node];
    view.in[0] = resolve(view.in[0], reader);
    view.place = compute;
    return views[{handle(v), e}] = {rewriter.add(std::move(view)), 0};
  }

  void send_home(const Root& root) {
    const Value home = copy(rewriter.map(root.value), g.spec(root.value), root.storage->place, LaneKind::copy_out,
                            g.nodes[root.value.node]);
    rewriter.graph().roots.push_back({home, root.storage});
  }

  void keep(int i) {
    GNode node = g.nodes[i];
    for (auto& v : node.in) v = resolve(v, i);
    node.place = compute;
    const int outputs = static_cast<int>(node.out.size());
    const int at = rewriter.add(std::move(node));
    for (int o = 0; o < outputs; ++o) rewriter.set({i, o}, {at, o});
    for (std::size_t k = 0; k < g.nodes[i].in.size(); ++k) {
      const Value target = base(g.nodes[i].in[k]);
      if (!(writes(i) >> k & 1) || !foreign_leaf(target)) continue;
      const StorageRef& storage = g.nodes[target.node].storage;
      const Value home = copy(here.at({handle(target), copy_of(target, i)}), storage->spec, storage->place, LaneKind::copy_out, g.nodes[i]);
      rewriter.graph().roots.push_back({home, storage});
    }
  }

  // A result that is a view: made dense where kernels work, then sent.
  void send_view(const Root& root) {
    const Value v = resolve(root.value, n);
    Layouts layouts;
    const Graph& made = rewriter.graph();
    for (int i = 0; i < static_cast<int>(made.nodes.size()); ++i) {
      if (!made.is_view(i) || made.nodes[i].chain || made.nodes[i].form || made.nodes[i].copy) continue;
      Layout out;
      view_layout(made, made.nodes[i], layouts, out);
      layouts.set({i, 0}, out);
    }
    const Spec spec = made.spec(v);
    GNode dense;
    dense.op = g.nodes[root.value.node].op;
    dense.where = g.nodes[root.value.node].where;
    dense.chain = std::make_shared<ChainProgram>();
    dense.chain->loads = 1;
    dense.chain->stores = {0};
    dense.in = {v};
    dense.out = {spec};
    dense.place = compute;
    dense.kernel = backend.chain_kernel(*dense.chain);
    dense.problem = std::make_shared<Problem>();
    dense.problem->chain = dense.chain.get();
    dense.problem->threads = backend.threads();
    dense.problem->in = {{spec, layouts.of(made, v).strides, true, nullptr}};
    dense.problem->out = {{spec, contiguous_strides(spec.shape), true, nullptr}};
    const GNode beside = dense;
    const Value whole{rewriter.add(std::move(dense)), 0};
    rewriter.graph().roots.push_back({copy(whole, spec, root.storage->place, LaneKind::copy_out, beside), root.storage});
  }

  Graph run() {
    find_epochs();
    find_sources();
    schedule();
    roots_after.resize(n + 1);
    for (int r = 0; r < static_cast<int>(g.roots.size()); ++r) {
      const Root& root = g.roots[r];
      if (root.storage->place == compute && !foreign_leaf(base(root.value))) continue;
      const bool whole = !is_alias(root.value.node);
      roots_after[whole && !g.is_leaf(root.value.node) ? root.value.node : n].push_back(r);
    }
    std::unordered_map<int, std::vector<Value>> leaving;
    for (const auto& [v, after] : away) leaving[v.node].push_back(v);
    for (auto& [after, values] : leaving)
      std::sort(values.begin(), values.end(), [](Value a, Value b) { return handle(a) < handle(b); });
    for (int i = 0; i < n; ++i)
      if (g.is_leaf(i)) rewriter.keep(i);
    for (int i = 0; i <= n; ++i) {
      for (const auto& [source, e] : fetch_before[i]) fetch(source, e);
      if (i == n) break;
      if (!g.is_leaf(i) && !(is_alias(i) && foreign_leaf(base_of[i]))) {
        if (is_alias(i) && moved(base_of[i], i)) continue;  // read in backward alone: viewed anew over the copy
        keep(i);
      }
      for (int r : roots_after[i]) send_home(g.roots[r]);
      for (const Value& v : leaving[i]) host_copy[v] = copy(rewriter.map(v), g.spec(v), Place{}, LaneKind::copy_out, g.nodes[i]);
    }
    for (int r : roots_after[n]) {
      if (is_alias(g.roots[r].value.node)) {
        send_view(g.roots[r]);
      } else {
        send_home(g.roots[r]);
      }
    }
    for (const auto& r : g.roots)
      if (r.storage->place == compute && !foreign_leaf(base(r.value))) rewriter.graph().roots.push_back({rewriter.map(r.value), r.storage});
    return std::move(rewriter.graph());
  }
};

}  // namespace

Graph place_copies(Graph graph, Backend& backend, const CopyChoice& choice) {
  const Place compute = backend.compute_place();
  bool needed = false;
  for (auto& node : graph.nodes) {
    needed |= node.away;
    if (node.storage) {
      needed |= !(node.storage->place == compute);
    } else {
      node.place = compute;
    }
  }
  for (const auto& r : graph.roots) needed |= !(r.storage->place == compute);
  return needed ? Copier(graph, backend, choice).run() : graph;
}

}  // namespace supersonic
