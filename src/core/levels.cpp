#include "core/levels.h"

#include <algorithm>

#include "core/machine.h"

namespace supersonic {
namespace {

constexpr double kShare = 0.9;  // of the forward pass's time that copies may take
constexpr double kDear =
    2;  // times a region's mean of seconds per byte: kept rather than recomputed
constexpr double kHostShare = 0.5;  // of the host's free memory that may be page-locked

RematChoice again(std::vector<bool> regions, std::vector<bool> kept = {}) {
  return {true, std::move(regions), std::move(kept)};
}

// What lies between the two passes, per region (index 0: outside of all), with cheap results
// recomputed and nothing else.
struct Survey {
  std::uint32_t regions;
  std::vector<std::size_t> bytes;      // by region: made there and read by backward
  std::vector<double> seconds;         // by region: recomputing it
  std::vector<std::vector<int>> made;  // by region: ids of the nodes that made those bytes
  std::vector<bool> dear;              // by id
  std::size_t boundaries = 0;          // bytes that are left when every region is recomputed
  double forward = 0;                  // seconds
  std::size_t streamed = 0;            // bytes of storages that are copied in for each pass

  Survey(const Graph& recorded, Backend& backend, const Policy& policy)
      : regions(count_regions(recorded)),
        bytes(regions + 1),
        seconds(regions + 1),
        made(regions + 1),
        dear(recorded.nodes.size()) {
    std::vector<double> cost(recorded.nodes.size());
    for (int i = 0; i < static_cast<int>(recorded.nodes.size()); ++i) {
      const GNode& n = recorded.nodes[i];
      if (recorded.is_leaf(i) && !(n.storage->place == backend.compute_place()))
        streamed += n.storage->bytes;
      if (recorded.is_leaf(i) || recorded.is_view(i) || n.backward || n.op->traits.effect) continue;
      cost[i] = backend.seconds(problem_of(recorded, i, backend, policy));
      forward += cost[i];
    }
    std::vector<std::size_t> waits(recorded.nodes.size());  // bytes of a node that backward reads
    const Graph kept = rematerialise(recorded, {});
    for_waiting(kept, [&](const GNode& maker, std::size_t n) { waits[maker.id] += n; });
    const Graph all = rematerialise(recorded, again(std::vector<bool>(regions + 1, true)));
    for_waiting(all, [&](const GNode&, std::size_t n) { boundaries += n; });
    for (const GNode& n : all.nodes) {
      if (n.id < 0 || !n.backward || recorded.nodes[n.id].backward || n.op->traits.cheap) continue;
      seconds[n.region] += cost[n.id];
    }
    for (const GNode& n : kept.nodes) {
      if (n.id < 0 || n.backward || !waits[n.id]) continue;
      bytes[n.region] += waits[n.id];
      made[n.region].push_back(n.id);
    }
    for (std::uint32_t r = 1; r <= regions; ++r)
      for (int id : made[r])
        dear[id] = cost[id] * static_cast<double>(bytes[r]) >
                   kDear * seconds[r] * static_cast<double>(waits[id]);
  }

  // f(maker, bytes) for each value of the forward pass that backward reads.
  template <class F>
  static void for_waiting(const Graph& g, F f) {
    std::unordered_map<Value, bool, ValueHash> seen;
    for (const GNode& n : g.nodes) {
      if (!n.backward) continue;
      for (const auto& v : n.in) {
        const Value b = g.base(v);
        const GNode& maker = g.nodes[b.node];
        if (g.is_leaf(b.node) || maker.backward || maker.id < 0 ||
            !seen.try_emplace(b, true).second)
          continue;
        f(maker, bytes_of(g.spec(b)));
      }
    }
  }

  std::size_t all_bytes() const {
    std::size_t n = 0;
    for (std::uint32_t r = 1; r <= regions; ++r) n += bytes[r];
    return n;
  }
};

struct Ladder {
  const Survey& s;
  std::vector<Level> levels;
  const std::size_t ids;

  // Spreads n regions over all but the last, whose values backward reads at once.
  std::vector<bool> spread(int n) const {
    std::vector<bool> chosen(s.regions + 1);
    const auto of = static_cast<std::int64_t>(s.regions) - 1;
    for (std::int64_t r = 1; r <= of; ++r) chosen[r] = r * n / of > (r - 1) * n / of;
    return chosen;
  }

  std::vector<bool> nodes_of(const std::vector<bool>& chosen) const {
    std::vector<bool> nodes(ids);
    for (std::uint32_t r = 1; r <= s.regions; ++r)
      for (int id : s.made[r])
        if (chosen[r]) nodes[id] = true;
    return nodes;
  }

  // `away` regions sent to host memory, the first `n` of the others recomputed.
  void mixed(int away, std::uint32_t n) {
    const std::vector<bool> sent = spread(away);
    std::vector<bool> repeated(s.regions + 1);
    std::uint32_t left = n;
    for (std::uint32_t r = 1; r <= s.regions && left; ++r)
      if (!sent[r]) repeated[r] = true, --left;
    std::string name = n == 0 && away == 0 ? "norms, activations and casts recomputed" : "";
    if (n) name = fmt::format("{} of {} regions recomputed", n, s.regions);
    if (away)
      name +=
          fmt::format("{}{} of {} in host memory", n ? ", " : "activations of ", away, s.regions);
    levels.push_back({again(repeated, n ? s.dear : std::vector<bool>()),
                      {},
                      nodes_of(sent),
                      true,
                      std::move(name)});
  }

  // As much as possible outside: `away` regions whole, of the others the boundaries and what is
  // dear.
  void boundaries(int away) {
    const std::vector<bool> sent = spread(away);
    std::vector<bool> repeated(s.regions + 1, true), nodes(ids, true);
    for (std::uint32_t r = 1; r <= s.regions; ++r) repeated[r] = !sent[r];
    repeated[s.regions] = false;
    for (int id : s.made[s.regions]) nodes[id] = false;
    levels.push_back(
        {again(repeated, s.dear),
         {},
         std::move(nodes),
         true,
         fmt::format("{} of {} regions recomputed, {} and boundaries in host memory",
                     s.regions - 1 - static_cast<std::uint32_t>(away), s.regions, away)});
  }

  void last_ones() {
    const std::vector<bool> every(s.regions + 1, true), nodes(ids, true);
    if (std::find(s.dear.begin(), s.dear.end(), true) != s.dear.end())
      levels.push_back({again(every, s.dear), CopyChoice{1}, nodes, true,
                        "all regions recomputed but for what is dear, boundaries in host memory"});
    levels.push_back({again(every), CopyChoice{1}, nodes, true,
                      "all regions recomputed, boundaries in host memory"});
    levels.push_back(
        {again(every), CopyChoice{0}, nodes, false,
         "all regions recomputed, boundaries in host memory, copies at the last moment"});
  }
};

// How many of the regions' worth of bytes the link carries, and host memory holds, when `taken`
// bytes go the same way: out during the forward pass, and back during the backward pass, which is
// twice as long and shares the link with streamed weights.
int carried(const Survey& s, Backend& backend, std::size_t taken, std::size_t of_all) {
  const double mean = static_cast<double>(of_all) / s.regions,
               per_byte = backend.copy_seconds(1 << 20) / (1 << 20);
  if (per_byte <= 0 || s.forward <= 0 || mean <= 0) return 0;
  const double host = kHostShare * static_cast<double>(inspect_machine().available);
  const double out = kShare * s.forward / per_byte,
               back = 2 * out - static_cast<double>(s.streamed);
  const double room = std::min({out, back, host}) - static_cast<double>(taken);
  return static_cast<int>(std::clamp(room / mean, 0.0, static_cast<double>(s.regions) - 1));
}

}  // namespace

std::vector<Level> levels_of(const Graph& recorded, Backend& backend, const Policy& policy) {
  const Survey s(recorded, backend, policy);
  Ladder ladder{s, {}, recorded.nodes.size()};
  const bool apart = !(backend.compute_place() == Place{}) && policy.offload;
  const int most = apart && s.regions > 1 ? carried(s, backend, 0, s.all_bytes()) : 0;
  for (int a = 0; a <= most; ++a) ladder.mixed(a, 0);
  for (std::uint32_t n = 1; n + static_cast<std::uint32_t>(most) <= s.regions; ++n)
    ladder.mixed(most, n);
  if (!apart) return std::move(ladder.levels);
  if (most > 0) {
    const std::size_t inside = s.all_bytes() - std::min(s.all_bytes(), s.boundaries);
    for (int a = carried(s, backend, s.boundaries, inside); a >= 0; --a) ladder.boundaries(a);
  }
  ladder.last_ones();
  return std::move(ladder.levels);
}

Level recomputed_level(const Graph& recorded, std::uint32_t n) {
  const std::uint32_t regions = count_regions(recorded);
  std::vector<bool> repeated(regions + 1);
  for (std::uint32_t r = 1; r <= std::min(n, regions); ++r) repeated[r] = true;
  return {again(repeated),
          {},
          {},
          true,
          n ? fmt::format("{} of {} regions recomputed", std::min(n, regions), regions)
            : "norms, activations and casts recomputed"};
}

}  // namespace supersonic
