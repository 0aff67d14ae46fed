// Executor: arenas and lanes that run plans. Program: a captured function, replayed; its inputs are storages that the caller
// fills, its results storages that the caller reads. A run allocates nothing. Runs of one executor follow each other, since they
// share its arenas; the host may be ahead of them.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "core/plan.h"

namespace supersonic {

class Executor {
 public:
  explicit Executor(Backend& backend) : backend_(backend) {}
  Backend& backend() { return backend_; }
  std::byte* base(Place place, std::size_t bytes);  // the place's arena, grown to at least `bytes`
  std::size_t arena_bytes(Place place) const;
  void finish();  // waits for every run that was started

 private:
  friend class BoundPlan;
  struct Entry {
    Place place;
    std::unique_ptr<Arena> arena;
    std::size_t bytes = 0;
  };
  Backend& backend_;
  std::vector<Entry> arenas_;
  bool started_ = false;  // a run may not have ended yet
};

// A plan bound to an executor's memory.
class BoundPlan {
 public:
  BoundPlan() = default;
  BoundPlan(std::shared_ptr<const Plan> plan, Executor& executor);
  void run();    // and waits for the end
  void start();  // see Program::start
  bool runs_ahead() const;
  const Plan& plan() const { return *plan_; }

 private:
  void enqueue();
  std::shared_ptr<const Plan> plan_;
  Executor* executor_ = nullptr;
  std::vector<Pointers> pointers_;
  std::vector<Planes> planes_;  // of quantized operands that were copied into an arena
  std::unique_ptr<Replay> replay_;
  bool sync_each_ = false, one_lane_ = false;
  int runs_ = 0;  // counted up to the capture
  std::vector<int> profile_rows_;  // of each step; empty: not measured
};

class Program {
 public:
  // Records `fn` once and plans it. What it returns survives in results(); effects on storages happen at each run.
  static Program capture(const std::function<Tensors()>& fn, Executor& executor, const Policy& policy = {});
  void run() { bound_.run(); }
  // A run whose end nobody waits for yet: a Fence that is marked after it, or Executor::finish(), does. It begins when the runs before
  // it have ended. A program that copies to or from host memory ends before this returns.
  void start() { bound_.start(); }
  bool runs_ahead() const { return bound_.runs_ahead(); }  // false: start() returns at the end
  const Storage& result(int i) const { return *results_[i]; }
  const Plan& plan() const { return bound_.plan(); }

 private:
  BoundPlan bound_;
  std::vector<StorageRef> results_;
};

// Plans without running: what capture would need, in bytes of arena (fit).
std::shared_ptr<const Plan> plan_only(const std::function<Tensors()>& fn, Backend& backend, const Policy& policy);

// Runs everything recorded on this thread's tape whose result is still named, through the plan cache. A named dense view of
// a storage stays an alias of it. With SUPERSONIC_EAGER=1 every recorded node outside of a capture is run like this at once.
void eval(Executor& executor, const Policy& policy = {});
void eval();                                          // on the CPU backend's default executor
bool eager_mode();
Storage& materialise(const Tensor& t);                // evaluates if needed
template <class T>
std::span<const T> read(const Tensor& t) {
  return materialise(t).values<T>();
}
struct PlanCacheStats {
  std::uint64_t hits = 0, misses = 0;
};
PlanCacheStats plan_cache_stats();

}  // namespace supersonic
