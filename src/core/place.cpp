// Placement: lifetimes, in-place pairs, best-fit offsets, lanes and waits. Turns a graph whose kernels are chosen into the steps
// of a plan. Offsets are multiples of 64 bytes; an arena's size is the highest byte that a step touches.
#include <algorithm>
#include <map>

#include "core/leaf.h"
#include "core/plan.h"

namespace supersonic {
namespace {

constexpr std::size_t kAlign = 64;
std::size_t rounded(std::size_t bytes) { return (std::max<std::size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign; }

// Free list over one arena: best fit, coalescing.
struct FreeList {
  std::map<std::size_t, std::size_t> free;  // offset -> bytes
  std::size_t top = 0;

  std::size_t take(std::size_t bytes) {
    auto best = free.end();
    for (auto it = free.begin(); it != free.end(); ++it)
      if (it->second >= bytes && (best == free.end() || it->second < best->second)) best = it;
    if (best == free.end()) {
      std::size_t at = top;  // grow, taking a free block that touches the end
      if (!free.empty()) {
        auto last = std::prev(free.end());
        if (last->first + last->second == top) {
          at = last->first;
          free.erase(last);
        }
      }
      top = at + bytes;
      return at;
    }
    const auto [offset, size] = *best;
    free.erase(best);
    if (size > bytes) free[offset + bytes] = size - bytes;
    return offset;
  }

  void give(std::size_t offset, std::size_t bytes) {
    auto next = free.lower_bound(offset);
    if (next != free.end() && offset + bytes == next->first) {
      bytes += next->second;
      next = free.erase(next);
    }
    if (next != free.begin()) {
      auto prev = std::prev(next);
      if (prev->first + prev->second == offset) {
        prev->second += bytes;
        return;
      }
    }
    free[offset] = bytes;
  }
};

struct Touch {
  std::size_t begin, end;
  int step;
  bool write;
};

}  // namespace

struct Placer {
  const Graph& g;
  Backend& backend;
  const Policy& policy;
  std::shared_ptr<Plan> plan = std::make_shared<Plan>();
  Layouts layouts = {};
  std::vector<std::array<int, kMaxOutputs>> last_use = {};   // step position (node index) of the last reader
  std::unordered_map<Value, Location, ValueHash> where = {};  // of base values
  std::vector<std::pair<Place, FreeList>> arenas = {};
  std::unordered_map<const Storage*, int> storage_index = {};
  std::unordered_map<Value, const Storage*, ValueHash> direct = {};  // results written where they must end up
  std::map<std::pair<int, int>, std::vector<Touch>> touches = {};    // (place or ~storage, lane)
  std::vector<std::vector<Value>> dying = {};                        // after node i
  bool patient = true;
  bool lanes_used = false;
  int next_value = 0;
  double clock = 0, link_free = 0;                               // seconds, by the backend's estimates
  std::unordered_map<Value, double, ValueHash> leaving = {};          // values on their way out -> when that should be done
  std::vector<std::pair<double, Value>> lingering = {};               // dead but for such a copy

  FreeList& arena(Place place) {
    for (auto& [p, list] : arenas)
      if (p == place) return list;
    arenas.push_back({place, {}});
    return arenas.back().second;
  }

  int storage_of(const StorageRef& s) {
    auto [it, fresh] = storage_index.try_emplace(s.get(), static_cast<int>(plan->storages_.size()));
    if (fresh) plan->storages_.push_back(s);
    return it->second;
  }

  void find_lifetimes() {
    const int n = static_cast<int>(g.nodes.size());
    last_use.assign(n, {-1, -1, -1, -1});
    for (int i = 0; i < n; ++i) {
      if (g.nodes[i].op && g.is_view(i) && !g.nodes[i].chain) {
        Layout out;
        view_layout(g, g.nodes[i], layouts, out);
        layouts.set({i, 0}, out);
        continue;
      }
      lanes_used |= g.nodes[i].lane != LaneKind::compute;
      for (const auto& v : g.nodes[i].in) {
        const Value b = layouts.of(g, v).base;
        last_use[b.node][b.output] = i;
      }
    }
    for (const auto& r : g.roots) {
      const Value b = layouts.of(g, r.value).base;
      last_use[b.node][b.output] = n;
      const bool whole = b == r.value && !g.is_leaf(b.node) && g.nodes[b.node].place == r.storage->place;
      if (whole && !direct.count(b)) direct[b] = r.storage.get();
    }
    dying.resize(n + 1);
    for (int i = 0; i < n; ++i)
      for (int o = 0; o < static_cast<int>(g.nodes[i].out.size()); ++o)
        if (last_use[i][o] >= 0) dying[last_use[i][o]].push_back({i, o});
  }

  Location locate(Value v) const {
    const Layout l = layouts.of(g, v);
    Location at = where.at(l.base);
    const Spec& spec = g.spec(v);
    const Spec& base = g.spec(l.base);
    if (spec.format) return at;
    at.offset += static_cast<std::size_t>(l.offset) * size_of(base.dtype);
    std::int64_t span = spec.numel() ? 1 : 0;
    for (int d = 0; d < spec.shape.rank && span; ++d) span += (spec.shape[d] - 1) * l.strides[d];
    at.bytes = static_cast<std::size_t>(span) * size_of(spec.dtype);
    return at;
  }

  // An input whose buffer output o may take, or -1.
  int in_place_input(int i, int o) const {
    const GNode& n = g.nodes[i];
    if (!policy.reuse || n.form || n.copy) return -1;
    auto fits = [&](int k) {
      const Value v = n.in[k];
      const Layout l = layouts.of(g, v);
      if (!(l.base == v) || g.is_leaf(v.node) || last_use[v.node][v.output] != i || still_leaving(v)) return false;
      if (bytes_of(g.spec(v)) != bytes_of(n.out[o]) || !(g.spec(v).shape == n.out[o].shape)) return false;
      if (where.at(v).kind != Location::arena || !(where.at(v).place == n.place)) return false;
      // In a chain the same value twice is fine: an element is read before it is written. Another view of it is not.
      for (int j = 0; j < static_cast<int>(n.in.size()); ++j)
        if (j != k && layouts.of(g, n.in[j]).base == v && !(n.chain && n.in[j] == v)) return false;
      return size_of(g.spec(v).dtype) == size_of(n.out[o].dtype);
    };
    if (n.chain) {
      for (int k = 0; k < static_cast<int>(n.in.size()); ++k)
        if (n.problem->in[k].contiguous() && fits(k)) return k;
      return -1;
    }
    for (const auto& a : n.op->traits.may_alias)
      if (a.output == o && a.input >= 0 && a.input < static_cast<int>(n.in.size()) && fits(a.input)) return a.input;
    return -1;
  }

  bool still_leaving(Value v) const {
    const auto it = leaving.find(v);
    return it != leaving.end() && it->second > clock;
  }

  // Time passes: a step of node i is on its lane.
  void advance(int i) {
    const GNode& n = g.nodes[i];
    if (!patient || !n.problem) return;
    if (n.lane == LaneKind::compute) clock += backend.seconds(*n.problem);
    if (n.lane != LaneKind::copy_out) return;
    const Value source = layouts.of(g, n.in[0]).base;
    link_free = std::max(link_free, clock) + backend.copy_seconds(bytes_of(g.spec(source)));
    if (link_free > clock) leaving[source] = link_free;
  }

  void give_back_what_left() {
    std::erase_if(lingering, [&](const auto& l) {
      if (l.first > clock) return false;
      give_back(l.second);
      return true;
    });
  }

  void give_back(Value v) {
    auto it = where.find(v);
    if (it == where.end() || it->second.kind != Location::arena || !policy.reuse) return;
    arena(it->second.place).give(it->second.offset, rounded(bytes_of(g.spec(v))));
    it->second.kind = Location::none;
  }

  void place_outputs(int i, Step& step) {
    const GNode& n = g.nodes[i];
    std::vector<int> taken;
    for (int o = 0; o < static_cast<int>(n.out.size()); ++o) {
      const Value v{i, o};
      if (last_use[i][o] < 0) {
        if (!n.form) step.problem.out[o].live = false;
        const bool always = n.kernel && !n.form && (n.kernel->always >> o & 1);
        step.out.push_back({});
        if (!always) continue;
        const std::size_t bytes = rounded(bytes_of(n.out[o]));
        step.out.back() = {Location::arena, n.place, -1, arena(n.place).take(bytes), bytes, next_value++};
        where[v] = step.out.back();
        dying[i].push_back(v);
        continue;
      }
      Location at;
      at.place = n.place;
      at.bytes = bytes_of(n.out[o]);
      at.value = next_value++;
      if (auto d = direct.find(v); d != direct.end()) {
        at.kind = Location::storage;
        for (const auto& r : g.roots)
          if (r.storage.get() == d->second) at.index = storage_of(r.storage);
      } else {
        at.kind = Location::arena;
        const int alias = in_place_input(i, o);
        if (alias >= 0 && std::find(taken.begin(), taken.end(), alias) == taken.end()) {
          taken.push_back(alias);
          at.offset = where.at(n.in[alias]).offset;
          where.at(n.in[alias]).kind = Location::none;  // the block is the output's now
        } else {
          at.offset = arena(n.place).take(rounded(at.bytes));
        }
      }
      where[v] = at;
      step.out.push_back(at);
    }
  }

  void order_lanes(Step& step) {
    if (!lanes_used) return;
    const int self = static_cast<int>(plan->steps_.size()), lane = static_cast<int>(step.lane);
    std::array<int, kLanes> latest;
    latest.fill(-1);
    auto visit = [&](const Location& at, bool write) {
      if (at.kind == Location::none) return;
      const int space = at.kind == Location::storage ? -1 - at.index : at.place.kind * 256 + at.place.index;
      for (int other = 0; other < kLanes; ++other) {
        if (other == lane) continue;
        for (const Touch& t : touches[{space, other}])
          if (t.begin < at.offset + at.bytes && at.offset < t.end && (write || t.write))
            latest[other] = std::max(latest[other], t.step);
      }
      touches[{space, lane}].push_back({at.offset, at.offset + at.bytes, self, write});
    };
    for (std::size_t k = 0; k < step.in.size(); ++k) visit(step.in[k], step.writes >> k & 1);
    for (const auto& at : step.out) visit(at, true);
    visit(step.workspace, true);
    for (int other = 0; other < kLanes; ++other) {
      if (latest[other] < 0) continue;
      Step& producer = plan->steps_[latest[other]];
      if (producer.signal < 0) producer.signal = plan->events_++;
      step.waits.push_back(producer.signal);
    }
  }

  void emit(int i) {
    const GNode& n = g.nodes[i];
    give_back_what_left();
    Step step;
    step.kernel = n.form ? nullptr : n.kernel;
    step.form = n.form;
    step.copy = n.copy;
    step.chain = n.chain;
    step.lane = n.lane;
    if (n.problem) step.problem = *n.problem;
    if (g.is_effect(i) && !n.chain && !n.form && !n.copy) step.writes = n.op->traits.writes;
    step.label = fmt::format("{}{} ({}:{})", n.form ? n.form->name : n.chain ? "chain" : n.copy ? "copy" : n.op->name,
                             n.backward ? "'" : "", n.where.file_name(), n.where.line());
    for (const auto& v : n.in) step.in.push_back(locate(v));
    place_outputs(i, step);
    const std::size_t workspace = step.kernel && step.kernel->workspace ? step.kernel->workspace(step.problem) : 0;
    if (workspace) {
      step.workspace = {Location::arena, backend.compute_place(), -1, arena(backend.compute_place()).take(rounded(workspace)),
                        rounded(workspace), -1};
    }
    order_lanes(step);
    if (workspace && policy.reuse) arena(backend.compute_place()).give(step.workspace.offset, rounded(workspace));
    plan->steps_.push_back(std::move(step));
    advance(i);
    for (const Value& v : dying[i]) {
      if (still_leaving(v)) {
        lingering.push_back({leaving.at(v), v});
      } else {
        give_back(v);
      }
    }
  }

  // Results that are views, leaves or named twice are copied to their storage.
  void copy_roots() {
    for (const auto& r : g.roots) {
      const auto d = direct.find(r.value);
      if (d != direct.end() && d->second == r.storage.get()) continue;
      Step step;
      step.label = "result";
      step.chain = std::make_shared<ChainProgram>();
      step.chain->loads = 1;
      step.chain->stores = {0};
      step.kernel = backend.chain_kernel(*step.chain);
      step.problem.chain = step.chain.get();
      step.problem.threads = backend.threads();
      const Layout l = layouts.of(g, r.value);
      step.problem.in = {{g.spec(r.value), l.strides, true, nullptr}};
      step.problem.out = {{g.spec(r.value), contiguous_strides(g.spec(r.value).shape), true, nullptr}};
      step.in = {locate(r.value)};
      step.out = {{Location::storage, r.storage->place, storage_of(r.storage), 0, r.storage->bytes, next_value++}};
      order_lanes(step);
      plan->steps_.push_back(std::move(step));
    }
  }

  std::shared_ptr<Plan> run() {
    find_lifetimes();
    for (int i = 0; i < static_cast<int>(g.nodes.size()); ++i) {
      if (g.is_leaf(i)) {
        where[{i, 0}] = {Location::storage, g.nodes[i].storage->place, storage_of(g.nodes[i].storage), 0,
                         g.nodes[i].storage->bytes, -1};
        continue;
      }
      if (g.nodes[i].op && g.is_view(i) && !g.nodes[i].chain && !g.nodes[i].form && !g.nodes[i].copy) continue;
      emit(i);
    }
    copy_roots();
    for (const auto& [place, list] : arenas) plan->arenas_.push_back({place, list.top});
    return plan;
  }
};

std::shared_ptr<Plan> place(const Graph& graph, Backend& backend, const Policy& policy, bool patient) {
  Placer placer{graph, backend, policy};
  placer.patient = patient;
  return placer.run();
}

}  // namespace supersonic
