// Plan::verify(): replays the steps on paper. Every byte of every arena remembers which value wrote it last; a step may read a
// value only where all its bytes are still that value's. Where two lanes touch the same bytes and one of them writes, the waits
// must order them: each lane carries a vector clock that signals and waits pass on.
#include <map>

#include "core/plan.h"

namespace supersonic {
namespace {

struct Owner {
  std::size_t end;
  int value;
  int step;
};

struct Space {
  std::map<std::size_t, Owner> bytes;  // begin -> owner; disjoint

  void cut(std::size_t at) {
    auto it = bytes.upper_bound(at);
    if (it == bytes.begin()) return;
    --it;
    if (it->first < at && at < it->second.end) {
      const Owner right = it->second;
      it->second.end = at;
      bytes[at] = right;
    }
  }
  void write(std::size_t begin, std::size_t end, int value, int step) {
    if (begin == end) return;
    cut(begin);
    cut(end);
    bytes.erase(bytes.lower_bound(begin), bytes.lower_bound(end));
    bytes[begin] = {end, value, step};
  }
  // Whether all of [begin, end) belongs to `value`.
  bool holds(std::size_t begin, std::size_t end, int value) {
    cut(begin);
    cut(end);
    std::size_t at = begin;
    for (auto it = bytes.lower_bound(begin); at < end; ++it) {
      if (it == bytes.end() || it->first != at || it->second.value != value) return false;
      at = it->second.end;
    }
    return true;
  }
};

using Clock = std::array<int, kLanes>;

struct Access {
  int lane, step;
  std::size_t begin, end;
  bool write;
};

struct Verifier {
  const Plan& plan;
  std::map<int, Space> arenas;
  std::map<int, std::vector<Access>> accesses;
  std::array<Clock, kLanes> clocks{};
  std::vector<Clock> signals;

  static int arena_key(const Location& at) { return at.place.kind * 256 + at.place.index; }

  void touch(int step, const Location& at, bool write) {
    if (at.kind == Location::none || at.bytes == 0) return;
    const Step& s = plan.steps()[step];
    const int lane = static_cast<int>(s.lane);
    const int key = at.kind == Location::storage ? -1 - at.index : arena_key(at);
    auto& list = accesses[key];
    for (const Access& a : list) {
      const bool conflict = a.lane != lane && (a.write || write) && a.begin < at.offset + at.bytes && at.offset < a.end;
      CHECK(!conflict || clocks[lane][a.lane] >= a.step + 1, "plan: step {} ({}) and step {} share bytes on lanes {} and {} unordered",
            step, s.label, a.step, lane, a.lane);
    }
    list.push_back({lane, step, at.offset, at.offset + at.bytes, write});
  }

  void run() {
    signals.resize(plan.events());
    bool many_lanes = false;
    for (const auto& s : plan.steps()) many_lanes |= s.lane != LaneKind::compute;
    for (int i = 0; i < static_cast<int>(plan.steps().size()); ++i) {
      const Step& s = plan.steps()[i];
      const int lane = static_cast<int>(s.lane);
      for (int w : s.waits)
        for (int k = 0; k < kLanes; ++k) clocks[lane][k] = std::max(clocks[lane][k], signals[w][k]);
      clocks[lane][lane] = i + 1;
      for (std::size_t k = 0; k < s.in.size(); ++k) {
        const Location& at = s.in[k];
        if (at.kind == Location::arena) {
          CHECK(arenas[arena_key(at)].holds(at.offset, at.offset + at.bytes, at.value),
                "plan: step {} ({}) reads input {} after its bytes were given to another value", i, s.label, k);
          CHECK(at.offset + at.bytes <= plan.peak(at.place), "plan: step {} reads beyond the arena", i);
        }
        if (many_lanes) touch(i, at, s.writes >> k & 1);
      }
      if (s.workspace.kind != Location::none) write(i, s.workspace, many_lanes);
      for (const auto& at : s.out) write(i, at, many_lanes);
      for (std::size_t a = 0; a < s.out.size(); ++a)
        for (std::size_t b = 0; b < a; ++b) CHECK(disjoint(s.out[a], s.out[b]), "plan: step {} ({}) outputs overlap", i, s.label);
      for (const auto& at : s.out) CHECK(disjoint(at, s.workspace), "plan: step {} ({}) workspace overlaps an output", i, s.label);
      for (const auto& at : s.in) CHECK(disjoint(at, s.workspace), "plan: step {} ({}) workspace overlaps an input", i, s.label);
      if (s.signal >= 0) signals[s.signal] = clocks[lane];
    }
  }

  static bool disjoint(const Location& a, const Location& b) {
    if (a.kind != Location::arena || b.kind != Location::arena || !(a.place == b.place)) return true;
    return a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
  }

  void write(int i, const Location& at, bool many_lanes) {
    if (at.kind == Location::arena) {
      arenas[arena_key(at)].write(at.offset, at.offset + at.bytes, at.value, i);
      CHECK(at.offset + at.bytes <= plan.peak(at.place), "plan: step {} writes beyond the arena", i);
    }
    if (many_lanes) touch(i, at, true);
  }
};

}  // namespace

void Plan::verify() const { Verifier{*this, {}, {}, {}, {}}.run(); }

}  // namespace supersonic
