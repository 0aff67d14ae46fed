// The thread pool. A job is published by raising a generation counter; workers spin on it for some
// tens of microseconds (the gap between two kernels of a plan) and then sleep in a futex
// (std::atomic::wait). The end of a job and the barrier inside one work the same way. Nothing is
// allocated and no lock is taken per job.
#include "backend/cpu/pool.h"

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
  using Fn = void (*)(void*, int);
  alignas(64) std::atomic<std::uint32_t> generation{0};
  Fn fn = nullptr;  // null: leave
  void* context = nullptr;
  // Counts workers down to zero; `finished` changes when the last one is done.
  alignas(64) std::atomic<int> running{0};
  std::atomic<std::uint32_t> finished{0};
  alignas(64) std::atomic<int> arrived{0};
  std::atomic<std::uint32_t> phase{0};
  int threads = 1;
  std::vector<std::thread> workers;

  void publish(Fn f, void* c) {
    fn = f;
    context = c;
    running.store(threads - 1, std::memory_order_relaxed);
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
  }
  void work(int thread) {
    inside_job = true;
    for (std::uint32_t seen = 0;; ++seen) {
      await_change(generation, seen);
      const Fn f = fn;
      if (!f) return;
      f(context, thread);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        finished.fetch_add(1, std::memory_order_release);
        finished.notify_one();
      }
    }
  }
};

Pool::Pool(int threads) : state_(std::make_unique<State>()) {
  CHECK(threads >= 1 && threads <= 1024, "threads must be between 1 and 1024, got {}", threads);
  state_->threads = threads;
  state_->workers.reserve(threads - 1);
  for (int t = 1; t < threads; ++t)
    state_->workers.emplace_back([s = state_.get(), t] { s->work(t); });
}

Pool::~Pool() {
  state_->publish(nullptr, nullptr);
  for (auto& w : state_->workers) w.join();
}

int Pool::threads() const { return state_->threads; }

void Pool::run(void (*fn)(void*, int), void* context) {
  State& s = *state_;
  CHECK(!inside_job, "a job of the thread pool cannot start another job");
  inside_job = true;
  if (s.threads == 1) {
    fn(context, 0);
  } else {
    const std::uint32_t before = s.finished.load(std::memory_order_relaxed);
    s.publish(fn, context);
    fn(context, 0);
    await_change(s.finished, before);
  }
  inside_job = false;
}

void Pool::barrier() {
  State& s = *state_;
  if (s.threads == 1) return;
  const std::uint32_t phase = s.phase.load(std::memory_order_relaxed);
  if (s.arrived.fetch_add(1, std::memory_order_acq_rel) == s.threads - 1) {
    s.arrived.store(0, std::memory_order_relaxed);
    s.phase.fetch_add(1, std::memory_order_release);
    s.phase.notify_all();
  } else {
    await_change(s.phase, phase);
  }
}

}  // namespace supersonic::cpu
