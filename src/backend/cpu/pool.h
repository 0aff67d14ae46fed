// The CPU backend's thread pool: a fixed set of threads that run one job together. A job is cut into parts, at places that
// depend on the work and the number of threads alone, so that a result never depends on timing; who runs a part does: a
// thread that finds no core (another program, a slower core) leaves its parts to the others. The calling thread takes part, and a
// job allocates nothing.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace supersonic::cpu {

class Pool {
 public:
  explicit Pool(int threads);  // >= 1
  ~Pool();
  Pool(const Pool&) = delete;
  int threads() const;

  // Calls f(part, thread) once for each part in [0, count), 0 <= count <= kMaxParts, and returns when all are done. No two parts
  // that run at the same time have the same thread, in [0, threads()).
  template <class F>
  void parts(int count, F&& f) {
    run([](void* c, int part, int thread) { (*static_cast<std::remove_reference_t<F>*>(c))(part, thread); }, &f, count);
  }
  // As many parts as threads, for work whose parts share out the items themselves: f(part).
  template <class F>
  void each_thread(F&& f) {
    parts(threads(), [&](int part, int) { f(part); });
  }
  // Calls f(thread) once on every thread, all at the same time, for measurements.
  template <class F>
  void together(F&& f) {
    run([](void* c, int, int thread) { (*static_cast<std::remove_reference_t<F>*>(c))(thread); }, &f, kTogether);
  }
  // Splits [0, n) into contiguous ranges in multiples of grain, a few for each thread: f(begin, end, thread).
  template <class F>
  void ranges(std::int64_t n, std::int64_t grain, F&& f) {
    const std::int64_t units = (n + grain - 1) / grain, most = std::int64_t{threads()} * kPartsPerThread;
    if (units <= 1 || threads() == 1) return void(f(std::int64_t{0}, n, 0));
    const std::int64_t count = units < most ? units : most;
    parts(static_cast<int>(count), [&](int part, int thread) {
      const std::int64_t begin = units * part / count * grain, end = units * (part + 1) / count * grain;
      f(begin, end < n ? end : n, thread);
    });
  }
  // Calls f(item, thread) once for each of any number of items, each a part of its own as long as there are so many.
  template <class F>
  void items(std::int64_t n, F&& f) {
    const std::int64_t count = n < kMaxParts ? n : kMaxParts;
    parts(static_cast<int>(count), [&](int part, int thread) {
      for (std::int64_t i = n * part / count; i < n * (part + 1) / count; ++i) f(i, thread);
    });
  }

  static constexpr int kPartsPerThread = 4, kMaxParts = 0xffff;

 private:
  static constexpr int kTogether = -1;
  void run(void (*fn)(void*, int part, int thread), void* context, int count);
  struct State;
  std::unique_ptr<State> state_;
};

// Instruction sets, chosen once at start; SUPERSONIC_ISA=portable|avx2|avx512 lowers the choice for tests.
enum class Isa { portable, avx2, avx512 };  // avx512: F BW VL DQ VNNI BF16
Isa isa();
const char* name_of(Isa isa);

}  // namespace supersonic::cpu
