// A backend with a place of its own, for tests: kernels work in `device` memory, four lanes are threads with queues, and each
// step waits a random time before it runs. A missing copy or wait shows as a wrong result, as an operand outside of
// device memory, or as a race that the thread sanitizer sees. The kernels are the CPU backend's.
#pragma once
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <random>
#include <thread>

#include "backend/cpu/cpu_backend.h"
#include "core/graph.h"

namespace supersonic::testing {

class TwoPlaceBackend : public Backend {
 public:
  explicit TwoPlaceBackend(unsigned seed) : pool_(cpu_backend().threads()) {
    for (int k = 0; k < kLanes; ++k) lanes_[k] = std::make_unique<QueueLane>(*this, seed * 4 + static_cast<unsigned>(k));
    for (const Kernel* k : cpu_backend().kernels()) {
      kernels_.push_back(*k);
      kernels_.back().launch = launch;
      if (k->form) kernels_.back().form = form;
    }
    for (const Kernel& k : kernels_) list_.push_back(&k);
  }
  ~TwoPlaceBackend() override {
    for (auto& lane : lanes_) lane->stop();
  }

  const char* name() const override { return "two places"; }
  Place compute_place() const override { return {Place::device, 0}; }
  std::span<const Kernel* const> kernels() const override { return list_; }
  const Kernel* chain_kernel(const ChainProgram&) override {
    static const Kernel chain{.name = "queued.chain", .launch = launch, .strided = true};
    return &chain;
  }
  std::unique_ptr<Arena> arena(Place place) override { return std::make_unique<TestArena>(*this, place); }
  Lane& lane(LaneKind kind) override { return *lanes_[static_cast<int>(kind)]; }
  int events() const override { return static_cast<int>(events_.size()); }
  void reserve_events(int count) override {
    while (events() < count) events_.push_back(std::make_unique<Event>());
  }
  void copy(void* to, Place to_place, const void* from, Place from_place, std::size_t bytes, Lane& lane) override {
    ++copies;
    static_cast<QueueLane&>(lane).push([=, this] {
      require(on_device(to, bytes) == (to_place.kind == Place::device), "a copy writes to another place than it says");
      require(on_device(from, bytes) == (from_place.kind == Place::device), "a copy reads from another place than it says");
      std::memcpy(to, from, bytes);
    });
  }
  void signal(Lane& lane, int event) override {
    Event& e = *events_[event];
    const auto generation = ++e.enqueued;
    static_cast<QueueLane&>(lane).push([&e, generation] {
      std::lock_guard lock(e.mutex);
      e.done = generation;
      e.changed.notify_all();
    });
  }
  void wait(Lane& lane, int event) override {
    Event& e = *events_[event];
    const auto generation = e.enqueued;
    static_cast<QueueLane&>(lane).push([&e, generation] {
      std::unique_lock lock(e.mutex);
      e.changed.wait(lock, [&] { return e.done >= generation; });
    });
  }
  void sync() override {
    for (auto& lane : lanes_) lane->drain();
    std::lock_guard lock(fault_mutex_);
    if (!fault_.empty()) throw Error(fault_);
  }
  int threads() const override { return cpu_backend().threads(); }

  void poison() {
    for (auto& [base, bytes] : device_)
      if (bytes) std::memset(base, 0xff, bytes);
  }
  // Above 0: what a byte takes between the places, in seconds, when a step takes a microsecond.
  double link_seconds = 0;
  double seconds(const Problem&) const override { return link_seconds > 0 ? 1e-6 : 0; }
  double copy_seconds(std::size_t bytes) const override { return link_seconds * static_cast<double>(bytes); }
  int copies = 0;  // enqueued so far

 private:
  struct Event {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t enqueued = 0, done = 0;
  };

  struct QueueLane : Lane {
    TwoPlaceBackend& owner;
    cpu::CpuLane inner;
    std::mt19937 random;
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    bool busy = false, ends = false;
    std::thread thread;

    QueueLane(TwoPlaceBackend& o, unsigned seed) : owner(o), inner(o.pool_), random(seed), thread([this] { work(); }) {}
    void push(std::function<void()> f) {
      std::lock_guard lock(mutex);
      queue.push_back(std::move(f));
      changed.notify_all();
    }
    void drain() {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return queue.empty() && !busy; });
    }
    void stop() {
      {
        std::lock_guard lock(mutex);
        ends = true;
        changed.notify_all();
      }
      thread.join();
    }
    void work() {
      std::unique_lock lock(mutex);
      for (;;) {
        changed.wait(lock, [&] { return ends || !queue.empty(); });
        if (queue.empty()) return;
        auto f = std::move(queue.front());
        queue.pop_front();
        busy = true;
        lock.unlock();
        if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 150));
        try {
          f();
        } catch (const std::exception& e) {
          owner.require(false, e.what());
        }
        lock.lock();
        busy = false;
        changed.notify_all();
      }
    }
  };

  // Address-stable memory that starts as NaN.
  struct TestArena : Arena {
    TwoPlaceBackend& owner;
    std::unique_ptr<Arena> memory = cpu::host_arena();
    int index = -1;
    std::size_t bytes = 0;
    TestArena(TwoPlaceBackend& o, Place place) : owner(o) {
      if (place.kind != Place::device) return;
      index = static_cast<int>(o.device_.size());
      o.device_.push_back({nullptr, 0});
    }
    ~TestArena() override {
      if (index >= 0) owner.device_[index] = {nullptr, 0};
    }
    void* base() override { return memory->base(); }
    void grow(std::size_t wanted) override {
      memory->grow(wanted);
      std::memset(static_cast<std::byte*>(memory->base()) + bytes, 0xff, wanted - bytes);
      bytes = wanted;
      if (index >= 0) owner.device_[index] = {static_cast<std::byte*>(memory->base()), bytes};
    }
  };

  bool on_device(const void* p, std::size_t bytes) const {
    const auto* at = static_cast<const std::byte*>(p);
    for (const auto& [base, size] : device_)
      if (at >= base && at + bytes <= base + size) return true;
    return false;
  }
  void require(bool ok, const char* message) {
    if (ok) return;
    std::lock_guard lock(fault_mutex_);
    if (fault_.empty()) fault_ = message;
  }

  static const Kernel& inner_kernel(const Problem& p) {
    return p.chain ? cpu::chain_kernel : *find_kernel(cpu_backend(), p, nullptr);
  }
  static void launch(const Problem& p, const Pointers& ptr, Lane& lane) {
    auto& queue = static_cast<QueueLane&>(lane);
    queue.push([&p, &ptr, &queue] {
      for (std::size_t k = 0; k < p.in.size(); ++k) {
        if (p.in[k].spec.numel() == 0) continue;
        const void* data = p.in[k].spec.format ? ptr.planes[k]->data[0] : ptr.in[k];
        queue.owner.require(queue.owner.on_device(data, 1), "a kernel reads outside of device memory");
      }
      for (std::size_t o = 0; o < p.out.size(); ++o)
        queue.owner.require(!ptr.out[o] || p.out[o].spec.numel() == 0 || queue.owner.on_device(ptr.out[o], bytes_of(p.out[o].spec)),
                            "a kernel writes outside of device memory");
      inner_kernel(p).launch(p, ptr, queue.inner);
    });
  }
  // The CPU backend's forms are made on the queue like everything else. A form's maker is a plain function, so each of them has a
  // slot of its own.
  template <int slot>
  struct QueuedForm {
    static inline const Form* inner = nullptr;
    static inline Form queued;
    static const Form* of(const Form* wanted) {
      if (inner && inner != wanted) return nullptr;
      if (!inner) {
        inner = wanted;
        queued = {wanted->name, wanted->bytes, [](const Operand& o, const void* data, void* out, Lane& lane) {
                    auto& queue = static_cast<QueueLane&>(lane);
                    queue.push([&o, data, out, &queue] { inner->make(o, data, out, queue.inner); });
                  }};
      }
      return &queued;
    }
  };
  static const Form* form(const Problem& p, int input) {
    const Form* wanted = inner_kernel(p).form(p, input);
    if (!wanted) return nullptr;
    if (const Form* f = QueuedForm<0>::of(wanted)) return f;
    const Form* f = QueuedForm<1>::of(wanted);
    CHECK(f, "two_place_backend.h knows two forms alone");
    return f;
  }

  cpu::Pool pool_;
  std::vector<Kernel> kernels_;
  std::vector<const Kernel*> list_;
  std::vector<std::unique_ptr<Event>> events_;
  std::vector<std::pair<std::byte*, std::size_t>> device_;  // arenas in device memory
  std::mutex fault_mutex_;
  std::string fault_;
  std::unique_ptr<QueueLane> lanes_[kLanes];  // last: its threads use the rest
};

}  // namespace supersonic::testing
