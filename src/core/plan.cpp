#include "core/plan.h"

#include <algorithm>

namespace supersonic {
namespace {

struct Level {
  RematChoice remat;
  std::string name;
};

// The levels of the policy loop between `everything kept` and `every region recomputed`.
Level level_at(int i, std::uint32_t regions, const Policy& policy) {
  if (i == 0 && !policy.remat_cheap) return {{false, 0}, "everything kept"};
  const auto n = static_cast<std::uint32_t>(policy.remat_cheap ? i : i - 1);
  if (n == 0) return {{true, 0}, "norms, activations and casts recomputed"};
  return {{true, n}, fmt::format("{} of {} regions recomputed", n, regions)};
}

std::shared_ptr<Plan> plan_level(const Graph& recorded, const Level& level, Backend& backend, const Policy& policy) {
  Graph g = rematerialise(recorded, level.remat);
  g = expand(std::move(g), backend, policy);
  if (policy.fuse) g = fold_matmuls(g);
  g = fuse_chains(g, policy.fuse);
  g = select_kernels(g, backend, policy);
  return place(g, backend, policy);
}

std::string mebibytes(std::size_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)); }

}  // namespace

std::shared_ptr<const Plan> Plan::build(std::span<const Ref<Node>> nodes, std::span<const Tensor> roots,
                                        std::span<const StorageRef> results, Backend& backend, const Policy& policy) {
  const Graph recorded = import_nodes(nodes, roots, results);
  const std::uint32_t regions = count_regions(recorded);
  const int levels = static_cast<int>(regions) + (policy.remat_cheap ? 1 : 2);
  auto build = [&](int i) {
    const Level level = level_at(i, regions, policy);
    auto plan = plan_level(recorded, level, backend, policy);
    plan->level_ = level.name;
    return plan;
  };
  auto fits = [&](const Plan& plan) { return plan.peak(backend.compute_place()) <= policy.budget; };
  if (policy.checkpoint_regions >= 0)
    return build(std::min(levels - 1, policy.checkpoint_regions + (policy.remat_cheap ? 0 : 1)));
  auto best = build(0);
  if (fits(*best)) return best;
  auto least = build(levels - 1);
  if (!fits(*least)) {
    const std::size_t need = std::min(least->peak(backend.compute_place()), best->peak(backend.compute_place()));
    fail(ErrorKind::memory, "needs {} of working memory at the least, {} more than the budget of {}: use a smaller batch or "
         "a shorter sequence, or raise --memory", mebibytes(need), mebibytes(need - policy.budget), mebibytes(policy.budget));
  }
  int low = 0, high = levels - 1;  // low does not fit, high does
  auto chosen = least;
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
