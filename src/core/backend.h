// Backend: a device family as the core sees it: kernels, the chain compiler, memory, lanes and events, capture.
// A lane is an ordered queue of work; work on different lanes is ordered by events alone.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/kernel.h"

namespace supersonic {

enum class LaneKind : std::uint8_t { compute, copy_in, copy_out, comm };
constexpr int kLanes = 4;

struct Lane {
  virtual ~Lane() = default;
};

class Plan;

// A plan recorded by the device for replay (a CUDA graph, say).
struct Replay {
  virtual ~Replay() = default;
  virtual void start() = 0;   // puts a run behind what the compute lane has, and returns
  virtual void finish() = 0;  // after the backend's sync(): what the run wrote is in host memory
  // Whether a run may start before the last one has ended: nothing passes through host memory.
  virtual bool runs_ahead() const = 0;
};

// A point in the compute lane's work, for the host to wait for.
struct Fence {
  virtual ~Fence() = default;
  virtual void mark() = 0;  // after what the lane has been given so far
  virtual void wait() = 0;  // until then; throws what the device reports
};

// Memory whose address never changes while it grows.
struct Arena {
  virtual ~Arena() = default;
  virtual void* base() = 0;
  virtual void grow(std::size_t bytes) = 0;  // at least; keeps the address, throws Error(memory)
};

struct Backend {
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  virtual Place compute_place() const = 0;                      // where kernels read and write
  virtual std::span<const Kernel* const> kernels() const = 0;   // all of them; the planner groups by operation
  virtual const Kernel* chain_kernel(const ChainProgram&) = 0;  // runs a fused elementwise chain
  virtual std::unique_ptr<Arena> arena(Place) = 0;
  // Zero-filled memory that outlives plans, where kernels read and write it in place.
  virtual StorageRef storage(const Spec& spec, std::string name) { return Storage::make(spec, std::move(name)); }
  // Page-locked host memory with the contents of `host`, which copies read at the link's full speed: in Place::pinned, and a second
  // storage over the same bytes, in the compute place, through which kernels read it where it lies. The storage itself where kernels
  // work in host memory.
  struct Locked {
    StorageRef copied, read;
  };
  virtual Locked lock(const StorageRef& host) { return {host, host}; }
  // Zero-filled host memory for a program's results, where copies from the compute place arrive fastest.
  virtual StorageRef result_storage(const Spec& spec, std::string name) { return Storage::make(spec, std::move(name)); }
  virtual Lane& lane(LaneKind) = 0;
  virtual int events() const = 0;                   // how many events exist; a plan uses the first ones
  virtual void reserve_events(int count) = 0;
  virtual void copy(void* to, Place to_place, const void* from, Place from_place, std::size_t bytes, Lane&) = 0;
  virtual void signal(Lane&, int event) = 0;        // when the lane's work so far is done
  virtual void wait(Lane&, int event) = 0;          // the lane's later work waits for the event's last signal
  virtual void sync() = 0;                          // the host waits for everything
  virtual std::unique_ptr<Fence> fence();           // one that waits for everything, where a backend has no finer one
  virtual int threads() const { return 1; }
  // Whether products have this arithmetic here; where not, a plan asking for it computes in the nearest wider one.
  virtual bool computes(Compute c) const { return c != Compute::fp8; }
  // Estimates for the policy loop, in seconds: how long a step takes by its arithmetic and its bytes, and how long bytes are on their
  // way between host memory and the compute place. 0: unknown. Nothing is timed.
  virtual double seconds(const Problem&) const { return 0; }
  virtual double copy_seconds(std::size_t /*bytes*/) const { return 0; }
  // A recording of what `enqueue` puts on the lanes, the plan's steps in order. Called when a plan runs for the
  // second time. Null: this plan is better run by looping.
  virtual std::unique_ptr<Replay> capture(const Plan&, const std::function<void()>& /*enqueue*/) { return nullptr; }
};

Backend& cpu_backend();  // of this process; threads from SUPERSONIC_THREADS or the machine

}  // namespace supersonic
