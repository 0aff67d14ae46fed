// Runs the probe loops on all threads and keeps the best of a few runs.
#include "backend/cpu/kernels/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>

#include "backend/cpu/kernels/probe_inner.h"

namespace supersonic::cpu {
namespace {

constexpr std::size_t kStreamBytes = std::size_t{160} << 20;
constexpr std::size_t kSlack = 4096;  // prefetches run ahead
constexpr double kSeconds = 0.2;

const ProbeLoops& loops() {
#if defined(__x86_64__)
  if (isa() == Isa::avx512) return probe_avx512();
  if (isa() == Isa::avx2) return probe_avx2();
#endif
  return probe_portable();
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The best rate of repeated calls of work() -> amount, for kSeconds or `least` calls, whichever is longer.
template <class Work>
double best_rate(int least, Work work) {
  double best = 0;
  const double end = now() + kSeconds;
  for (int i = 0; i < least || now() < end; ++i) {
    const double start = now(), amount = work();
    best = std::max(best, amount / (now() - start));
  }
  return best;
}

double arithmetic(Pool& pool, double (*loop)(std::int64_t)) {
  constexpr std::int64_t kRounds = 40'000;
  return best_rate(3, [&] {
    double done = 0;
    pool.together([&](int thread) {
      const double amount = loop(kRounds);
      if (thread == 0) done = amount;
    });
    return done * pool.threads();
  });
}

}  // namespace

double probe_read(Pool& pool, std::size_t bytes) {
  const auto threads = static_cast<std::size_t>(pool.threads());
  const std::size_t part = std::max<std::size_t>(bytes / threads / 512, 1) * 512;
  const std::unique_ptr<std::uint8_t[]> data(new std::uint8_t[part * threads + kSlack]);
  std::atomic<std::uint64_t> sink{0};
  pool.together([&](int t) { std::memset(data.get() + part * static_cast<std::size_t>(t), t + 1, part); });
  const std::size_t repeats = std::max<std::size_t>((std::size_t{16} << 20) / (part * threads), 1);
  return best_rate(3, [&] {
    pool.together([&](int t) {
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < repeats; ++i) sum += loops().read(data.get() + part * static_cast<std::size_t>(t), part);
      sink.fetch_add(sum, std::memory_order_relaxed);
    });
    return static_cast<double>(part * threads * repeats);
  });
}

Limits probe_limits(Pool& pool) {
  return {arithmetic(pool, loops().fp32), arithmetic(pool, loops().bf16), arithmetic(pool, loops().int8), probe_read(pool, kStreamBytes)};
}

}  // namespace supersonic::cpu
