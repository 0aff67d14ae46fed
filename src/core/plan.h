// Plan: the immutable result of planning: steps with kernels and operand places fixed, arena size per place, waits.
// peak() is exact and known before anything runs.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/graph.h"
#include "core/policy.h"
#include "core/tape.h"

namespace supersonic {

// Where an operand's bytes lie: in the arena of a place, or in a storage.
struct Location {
  enum Kind : std::uint8_t { none, arena, storage } kind = none;
  Place place;
  int index = -1;             // index into Plan::storages
  std::size_t offset = 0;     // bytes
  std::size_t bytes = 0;      // extent touched
  int value = -1;             // which value the bytes are (verify)
};

struct Step {
  const Kernel* kernel = nullptr;  // null: copy or form
  const Form* form = nullptr;
  bool copy = false;               // bytes of in[0] to out[0]
  Problem problem;
  std::vector<Location> in, out;
  Location workspace;
  LaneKind lane = LaneKind::compute;
  std::vector<int> waits;          // events
  int signal = -1;
  unsigned writes = 0;             // inputs that the step writes
  std::string label;               // operation and recording line
  std::shared_ptr<ChainProgram> chain;
};

// What holds memory at a plan's peak: the results of one operation at one line of the program.
struct PeakItem {
  std::string label;
  std::size_t bytes = 0;
  int count = 0;
};

class Plan {
 public:
  // Plans the nodes (in record order) so that each root's value ends in its storage. Throws Error(memory) with advice when no
  // level of the policy meets the budget; Error when an operation has no kernel, with each candidate's reason.
  static std::shared_ptr<const Plan> build(std::span<const Ref<Node>> nodes, std::span<const Tensor> roots,
                                           std::span<const StorageRef> results, Backend& backend, const Policy& policy);

  std::size_t peak(Place place = {}) const;   // arena bytes
  // What lives in the arena at the step that needs most of it, largest first; their sum is the peak less what placement wastes.
  std::vector<PeakItem> at_peak(Place place = {}) const;
  std::span<const Step> steps() const { return steps_; }
  std::span<const StorageRef> storages() const { return storages_; }
  int events() const { return events_; }
  const std::string& level() const { return level_; }  // what the policy loop chose, for people
  std::string explain() const;
  // The same steps over other storages.
  std::shared_ptr<const Plan> with_storages(const std::function<StorageRef(int)>& storage) const;
  // Proves that no live ranges overlap, that each read sees its last writer, and that lanes are ordered where they share bytes.
  void verify() const;

 private:
  friend struct Placer;
  friend struct PlanSurgery;  // tests corrupt a copy, to see that verify() notices
  std::vector<Step> steps_;
  std::vector<StorageRef> storages_;
  std::vector<std::pair<Place, std::size_t>> arenas_;
  int events_ = 0;
  std::string level_;
};

// Chooses offsets for the graph's values and emits steps (place.cpp).
// patient: what is copied away keeps its memory until the copy should be done, so that no step waits for one.
std::shared_ptr<Plan> place(const Graph& graph, Backend& backend, const Policy& policy, bool patient);

}  // namespace supersonic
