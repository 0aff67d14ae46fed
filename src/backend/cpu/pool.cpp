// The thread pool. Each thread owns a run of neighbouring parts of the job, which it takes from the
// front, so that it reads memory in order; who has none left takes from the back of the others'.
// What is left of a run is one word with the job's generation, and a part is taken by
// compare-and-swap on it. A run that nobody has touched in this job still has an older generation
// and counts as whole, so publishing a job writes one word; a thread that comes too late finds
// newer generations or no part left, and nobody waits for it. Workers look for a new job for some
// tens of microseconds (the gap between two kernels of a plan) and then sleep in a futex
// (std::atomic::wait), and so does the caller at the end of a job. Nothing is allocated and no lock
// is taken per job.
#include "backend/cpu/pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/error.h"

namespace supersonic::cpu {
namespace {

constexpr auto kSpin = std::chrono::microseconds(40);
constexpr int kPausesPerLook = 64;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Returns once word != old: first spinning, then asleep.
void await_change(const std::atomic<std::uint32_t>& word, std::uint32_t old) {
  for (int i = 0; i < kPausesPerLook; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause();
  }
  const auto until = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (word.load(std::memory_order_acquire) != old) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

thread_local bool inside_job = false;

}  // namespace

struct Pool::State {
  using Fn = void (*)(void*, int, int);
  // Parts [next, end) of job `generation` that nobody has taken, packed into one word.
  struct Run {
    std::uint32_t generation, next, end;
    static Run of(std::uint64_t w) {
      return {static_cast<std::uint32_t>(w >> 32), static_cast<std::uint32_t>(w >> 16) & 0xffff,
              static_cast<std::uint32_t>(w) & 0xffff};
    }
    std::uint64_t word() const { return std::uint64_t{generation} << 32 | next << 16 | end; }
  };
  struct alignas(64) Slot {
    std::atomic<std::uint64_t> run{0};
  };

  // Job: written before its generation is published, and read only by who holds one of its parts.
  Fn fn = nullptr;  // null: leave
  void* context = nullptr;
  alignas(64) std::atomic<std::uint64_t> job{0};  // generation << 32 | number of parts
  std::atomic<std::uint32_t> generation{0};       // the same one, to sleep on
  std::atomic<std::uint32_t> together{0};         // of the last job that every thread must run
  alignas(64) std::atomic<int> left{0};           // parts that are not done
  std::atomic<std::uint32_t> finished{0};         // changes when the last one is
  const int threads;
  const std::unique_ptr<Slot[]> slots;
  std::vector<std::thread> workers;

  explicit State(int count) : threads(count), slots(new Slot[static_cast<std::size_t>(count)]) {}

  void publish(Fn f, void* c, int count) {
    const std::uint32_t next = generation.load(std::memory_order_relaxed) + 1;
    fn = f;
    context = c;
    left.store(count == kTogether ? threads : count, std::memory_order_relaxed);
    if (count == kTogether) together.store(next, std::memory_order_relaxed);
    job.store(std::uint64_t{next} << 32 | static_cast<std::uint32_t>(std::max(count, 0)),
              std::memory_order_release);
    // Sequentially consistent, for notify_all looks whether anybody sleeps: a plain store could still
    // be unseen while it looks, and a thread that falls asleep in between would sleep on.
    generation.store(next);
    generation.notify_all();
  }
  void done() {
    if (left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    finished.fetch_add(1);  // as in publish()
    finished.notify_one();
  }
  // Takes a part of the owner's run, or -1 when none is left.
  int take(std::uint32_t current, std::uint32_t count, int owner, bool front) {
    std::atomic<std::uint64_t>& slot = slots[static_cast<std::size_t>(owner)].run;
    std::uint64_t seen = slot.load(std::memory_order_acquire);
    for (;;) {
      Run r = Run::of(seen);
      if (const auto age = static_cast<std::int32_t>(current - r.generation); age < 0)
        return -1;
      else if (age > 0)
        r = {current, first_part(count, owner), first_part(count, owner + 1)};
      if (r.next >= r.end) return -1;
      const std::uint32_t part = front ? r.next++ : --r.end;
      if (slot.compare_exchange_weak(seen, r.word(), std::memory_order_acq_rel,
                                     std::memory_order_acquire))
        return static_cast<int>(part);
    }
  }
  std::uint32_t first_part(std::uint32_t count, int owner) const {
    return static_cast<std::uint32_t>(std::uint64_t{count} * static_cast<std::uint32_t>(owner) /
                                      static_cast<std::uint32_t>(threads));
  }
  // Runs parts until none is left: the thread's own, then the others'.
  void work_off(int thread) {
    const std::uint64_t j = job.load(std::memory_order_acquire);
    const auto current = static_cast<std::uint32_t>(j >> 32), count = static_cast<std::uint32_t>(j);
    for (int i = 0, owner = thread; i < threads; ++i, owner = owner + 1 == threads ? 0 : owner + 1)
      for (int part; (part = take(current, count, owner, i == 0)) >= 0;) {
        fn(context, part, thread);
        done();
      }
  }
  void work(int thread) {
    inside_job = true;
    for (std::uint32_t seen = 0;;) {
      await_change(generation, seen);
      seen = generation.load(std::memory_order_acquire);
      if (together.load(std::memory_order_relaxed) != seen) {
        work_off(thread);
        continue;
      }
      const Fn f = fn;
      if (!f) return;
      f(context, thread, thread);
      done();
    }
  }
};

Pool::Pool(int threads) {
  CHECK(threads >= 1 && threads <= 1024, "threads must be between 1 and 1024, got {}", threads);
  state_ = std::make_unique<State>(threads);
  state_->workers.reserve(threads - 1);
  for (int t = 1; t < threads; ++t)
    state_->workers.emplace_back([s = state_.get(), t] { s->work(t); });
}

Pool::~Pool() {
  state_->publish(nullptr, nullptr, kTogether);
  for (auto& w : state_->workers) w.join();
}

int Pool::threads() const { return state_->threads; }

void Pool::run(void (*fn)(void*, int, int), void* context, int count) {
  State& s = *state_;
  CHECK(!inside_job, "a job of the thread pool cannot start another job");
  CHECK(count <= kMaxParts, "a job of {} parts: {} at most", count, kMaxParts);
  if (count == 0) return;
  inside_job = true;
  if (s.threads == 1) {
    for (int part = 0; part < std::max(1, count); ++part) fn(context, part, 0);
  } else {
    const std::uint32_t before = s.finished.load(std::memory_order_relaxed);
    s.publish(fn, context, count);
    if (count == kTogether) {
      fn(context, 0, 0);
      s.done();
    } else {
      s.work_off(0);
    }
    await_change(s.finished, before);
  }
  inside_job = false;
}

}  // namespace supersonic::cpu
