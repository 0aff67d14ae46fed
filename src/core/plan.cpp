#include "core/plan.h"

#include <algorithm>
#include <map>

#include "core/levels.h"

namespace supersonic {
namespace {

constexpr int kPatience = 2;  // levels

std::shared_ptr<Plan> plan_level(const Graph& recorded, const Level& level, Backend& backend, const Policy& policy) {
  Graph g = recorded;
  for (auto& n : g.nodes) n.away = n.id >= 0 && n.id < static_cast<int>(level.away.size()) && level.away[n.id];
  g = rematerialise(g, level.remat);
  g = expand(std::move(g), backend, policy);
  if (policy.fuse) g = fold_matmuls(g);
  g = fuse_chains(g, policy.fuse);
  g = select_kernels(g, backend, policy);
  g = place_copies(std::move(g), backend, level.copies);
  return place(g, backend, policy, level.patient);
}

std::string mebibytes(std::size_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)); }

// Says what takes the memory and the smallest change that fits.
[[noreturn]] void refuse(const Plan& least, Backend& backend, const Policy& policy) {
  const std::size_t peak = least.peak(backend.compute_place()), more = policy.taken + peak - policy.budget;
  const std::string beside = policy.taken ? fmt::format(" beside {} of weights, adapter and optimizer", mebibytes(policy.taken)) : "";
  std::string text = fmt::format("needs {} of working memory at the least ({}){}, {} more than the budget of {}. At the peak:",
                                 mebibytes(peak), least.level(), beside, mebibytes(more), mebibytes(policy.budget));
  const auto items = least.at_peak(backend.compute_place());
  for (std::size_t i = 0; i < std::min<std::size_t>(items.size(), 5); ++i)
    text += fmt::format("\n  {:>12}  {}{}", mebibytes(items[i].bytes), items[i].label,
                        items[i].count > 1 ? fmt::format(" x {}", items[i].count) : "");
  text += policy.budget > policy.taken
              ? fmt::format("\nUse a batch or sequence about {} % as long, or raise --memory by {}.", (policy.budget - policy.taken) * 100 / peak, mebibytes(more))
              : fmt::format("\nRaise --memory by {}, or choose a smaller or a 4-bit model.", mebibytes(more));
  throw Error(text, ErrorKind::memory);
}

}  // namespace

std::shared_ptr<const Plan> Plan::build(std::span<const Ref<Node>> nodes, std::span<const Tensor> roots,
                                        std::span<const StorageRef> results, Backend& backend, const Policy& policy) {
  const Graph recorded = import_nodes(nodes, roots, results);
  auto planned = [&](const Level& level) {
    auto plan = plan_level(recorded, level, backend, policy);
    plan->level_ = level.name;
    return plan;
  };
  auto fits = [&](const Plan& plan) { return policy.taken + plan.peak(backend.compute_place()) <= policy.budget; };
  if (policy.checkpoint_regions >= 0) {
    auto plan = planned(recomputed_level(recorded, static_cast<std::uint32_t>(policy.checkpoint_regions)));
    if (!fits(*plan)) refuse(*plan, backend, policy);
    return plan;
  }
  if (policy.least) {
    const auto levels = levels_of(recorded, backend, policy);
    return planned(levels[levels.size() - (levels.back().copies.ahead == 0 ? 2 : 1)]);
  }
  auto best = planned(policy.remat_cheap ? recomputed_level(recorded, 0) : Level{RematChoice{false}, {}, {}, true, "everything kept"});
  if (fits(*best)) return best;
  const auto levels = levels_of(recorded, backend, policy);
  auto build = [&](int i) { return planned(levels[i]); };
  int low = policy.remat_cheap ? 0 : -1, high = static_cast<int>(levels.size()) - 1;  // low does not fit, high does
  auto chosen = build(high), least = chosen;
  // The last level may need more than one before it, so those are tried as well: all of them where little is missing, else
  // until several in a row bring nothing, since a refusal shall not cost the planning of every level.
  const std::size_t room = policy.budget - std::min(policy.budget, policy.taken), far = room + room / 4;
  int worse = 0;
  while (!fits(*chosen) && --high > low && (worse < kPatience || least->peak(backend.compute_place()) <= far)) {
    chosen = build(high);
    const bool better = chosen->peak(backend.compute_place()) < least->peak(backend.compute_place());
    if (better) least = chosen;
    worse = better ? 0 : worse + 1;
  }
  if (!fits(*chosen)) {
    if (best->peak(backend.compute_place()) < least->peak(backend.compute_place())) least = best;
    refuse(*least, backend, policy);
  }
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    auto plan = build(middle);
    if (fits(*plan)) {
      high = middle;
      chosen = plan;
    } else {
      low = middle;
    }
  }
  return chosen;
}

std::vector<PeakItem> Plan::at_peak(Place place) const {
  struct Live {
    int first, last;
    std::size_t bytes;
  };
  std::map<int, Live> values;  // by value number
  for (int i = 0; i < static_cast<int>(steps_.size()); ++i) {
    const Step& s = steps_[i];
    auto here = [&](const Location& at) { return at.kind == Location::arena && at.place == place && at.value >= 0; };
    for (const auto& at : s.in) {
      if (!here(at)) continue;
      const bool taken = std::any_of(s.out.begin(), s.out.end(), [&](const Location& o) { return here(o) && o.offset == at.offset; });
      values.at(at.value).last = std::max(values.at(at.value).last, taken ? i - 1 : i);
    }
    for (const auto& at : s.out)
      if (here(at)) values[at.value] = {i, i, at.bytes};
  }
  std::vector<std::int64_t> change(steps_.size() + 1);
  auto workspace = [&](const Step& s) {
    return s.workspace.kind == Location::arena && s.workspace.place == place ? s.workspace.bytes : 0;
  };
  for (const auto& [id, v] : values) {
    change[v.first] += static_cast<std::int64_t>(v.bytes);
    change[v.last + 1] -= static_cast<std::int64_t>(v.bytes);
  }
  std::int64_t live = 0, most = -1;
  int peak = 0;
  for (int i = 0; i < static_cast<int>(steps_.size()); ++i) {
    live += change[i];
    const std::int64_t all = live + static_cast<std::int64_t>(workspace(steps_[i]));
    if (all > most) {
      most = all;
      peak = i;
    }
  }
  std::map<std::string, PeakItem> items;
  auto add = [&](const std::string& label, std::size_t bytes) {
    PeakItem& item = items[label];
    item.label = label;
    item.bytes += bytes;
    ++item.count;
  };
  for (const auto& [id, v] : values)
    if (v.first <= peak && peak <= v.last) add(steps_[v.first].label, v.bytes);
  if (!steps_.empty() && workspace(steps_[peak])) add("workspace of " + steps_[peak].label, workspace(steps_[peak]));
  std::vector<PeakItem> sorted;
  for (auto& [label, item] : items) sorted.push_back(item);
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return sorted;
}

std::size_t Plan::peak(Place place) const {
  for (const auto& [p, bytes] : arenas_)
    if (p == place) return bytes;
  return 0;
}

std::shared_ptr<const Plan> Plan::with_storages(const std::function<StorageRef(int)>& storage) const {
  auto copy = std::make_shared<Plan>(*this);
  for (std::size_t i = 0; i < storages_.size(); ++i) copy->storages_[i] = storage(static_cast<int>(i));
  for (auto& s : copy->steps_) s.problem.chain = s.chain.get();
  return copy;
}

std::string Plan::explain() const {
  std::string text = fmt::format("plan: {} steps, {}\n", steps_.size(), level_);
  for (const auto& [place, bytes] : arenas_)
    text += fmt::format("arena {}{}: {} bytes\n", place.kind == Place::host ? "host" : place.kind == Place::pinned ? "pinned" : "device",
                        place.index, bytes);
  auto location = [&](const Location& at) {
    if (at.kind == Location::none) return std::string("-");
    if (at.kind == Location::storage)
      return fmt::format("[{}+{}]", storages_[at.index]->name.empty() ? "storage" : storages_[at.index]->name, at.offset);
    return fmt::format("@{}+{}", at.offset, at.bytes);
  };
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& s = steps_[i];
    text += fmt::format("{:4} {:10} {:28} ", i, s.lane == LaneKind::compute ? "" : s.lane == LaneKind::copy_in ? "copy-in" : s.lane == LaneKind::copy_out ? "copy-out" : "comm",
                        s.kernel ? s.kernel->name : s.label.substr(0, s.label.find(' ')));
    for (std::size_t o = 0; o < s.out.size(); ++o)
      text += fmt::format("{}{} ", o < s.problem.out.size() ? to_string(s.problem.out[o].spec) : std::string("bytes"), location(s.out[o]));
    text += "<-";
    for (const auto& at : s.in) text += " " + location(at);
    if (s.workspace.kind != Location::none) text += fmt::format("  workspace {}", s.workspace.bytes);
    for (int w : s.waits) text += fmt::format("  wait e{}", w);
    if (s.signal >= 0) text += fmt::format("  signal e{}", s.signal);
    if (s.chain) text += "  {" + to_string(*s.chain) + "}";
    text += "  " + s.label + "\n";
  }
  return text;
}

}  // namespace supersonic
