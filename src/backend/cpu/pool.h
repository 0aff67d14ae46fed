// The CPU backend's thread pool: a fixed set of threads that run one job together, with one barrier per job.
// The calling thread takes part. A job allocates nothing. Parts are handed out in a fixed order of static ranges, so a
// result never depends on timing.
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

  // Calls fn(context, thread) once on every thread, thread in [0, threads()), and returns when all are done.
  void run(void (*fn)(void*, int thread), void* context);
  template <class F>
  void each_thread(F&& f) {
    run([](void* c, int thread) { (*static_cast<std::remove_reference_t<F>*>(c))(thread); }, &f);
  }
  // Splits [0, n) into one contiguous range per thread, in multiples of grain: f(begin, end, thread).
  template <class F>
  void ranges(std::int64_t n, std::int64_t grain, F&& f) {
    const std::int64_t units = (n + grain - 1) / grain, workers = threads();
    if (units <= 1 || workers == 1) return void(f(std::int64_t{0}, n, 0));
    each_thread([&](int t) {
      const std::int64_t begin = units * t / workers * grain, end = units * (t + 1) / workers * grain;
      if (begin < end) f(begin, end < n ? end : n, t);
    });
  }
  // A barrier inside a job: every thread of the job must reach it.
  void barrier();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Instruction sets, chosen once at start; SUPERSONIC_ISA=portable|avx2|avx512 lowers the choice for tests.
enum class Isa { portable, avx2, avx512 };  // avx512: F BW VL DQ VNNI BF16
Isa isa();
const char* name_of(Isa isa);

}  // namespace supersonic::cpu
