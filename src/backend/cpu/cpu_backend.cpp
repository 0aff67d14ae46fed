#include "backend/cpu/cpu_backend.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace supersonic {

std::span<const Kernel* const> cpu_kernels();  // generated

namespace cpu {
namespace {

// Addresses that an arena reserves: as many bytes as the machine could ever give it, and half of what 'ulimit -v' leaves to the
// process. Memory is taken page by page.
std::size_t reserved_bytes() {
  constexpr std::size_t kUnknown = std::size_t{1} << 36, kStep = std::size_t{2} << 20;
  struct sysinfo machine {};
  std::size_t bytes = kUnknown;
  if (sysinfo(&machine) == 0) bytes = (std::size_t{machine.totalram} + machine.totalswap) * machine.mem_unit;
  struct rlimit addresses {};
  if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur != RLIM_INFINITY)
    bytes = std::min<std::size_t>(bytes, addresses.rlim_cur / 2);
  return (bytes + kStep - 1) / kStep * kStep;
}

class HostArena : public Arena {
 public:
  ~HostArena() override {
    if (base_) munmap(base_, reserved_);
  }
  void* base() override { return base_; }
  void grow(std::size_t bytes) override {
    if (!base_) {
      void* p = mmap(nullptr, reserved_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) fail(ErrorKind::memory, "cannot reserve address space for the arena: {}", std::strerror(errno));
      base_ = p;
    }
    const std::size_t page = std::size_t{2} << 20, wanted = (bytes + page - 1) / page * page;
    if (wanted <= bytes_) return;
    if (wanted > reserved_ || mprotect(base_, wanted, PROT_READ | PROT_WRITE) != 0)
      fail(ErrorKind::memory, "cannot grow the arena to {} bytes: free memory or choose a smaller batch or context", wanted);
    madvise(base_, wanted, MADV_HUGEPAGE);
    bytes_ = wanted;
  }

 private:
  const std::size_t reserved_ = reserved_bytes();
  void* base_ = nullptr;
  std::size_t bytes_ = 0;
};

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int threads) : pool_(threads), lane_(pool_) {}
  const char* name() const override { return "cpu"; }
  Place compute_place() const override { return {}; }
  std::span<const Kernel* const> kernels() const override { return cpu_kernels(); }
  const Kernel* chain_kernel(const ChainProgram&) override { return &cpu::chain_kernel; }
  std::unique_ptr<Arena> arena(Place) override { return host_arena(); }
  Lane& lane(LaneKind) override { return lane_; }
  int events() const override { return 0; }
  void reserve_events(int) override {}
  void copy(void* to, Place to_place, const void* from, Place from_place, std::size_t bytes, Lane&) override {
    CHECK(to_place.kind != Place::device && from_place.kind != Place::device,
          "the CPU cannot reach a GPU's memory: use an executor of that GPU's backend");
    std::memcpy(to, from, bytes);
  }
  void signal(Lane&, int) override {}
  void wait(Lane&, int) override {}
  void sync() override {}
  int threads() const override { return pool_.threads(); }

 private:
  Pool pool_;
  CpuLane lane_;
};

int requested_threads = 0;
bool backend_made = false;

}  // namespace

std::unique_ptr<Arena> host_arena() { return std::make_unique<HostArena>(); }
std::unique_ptr<Backend> make_cpu_backend(int threads) { return std::make_unique<CpuBackend>(threads); }

int default_threads() {
  if (requested_threads > 0) return requested_threads;
  if (const char* v = std::getenv("SUPERSONIC_THREADS"); v && std::atoi(v) > 0) return std::atoi(v);
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

void set_threads(int threads) {
  CHECK(!backend_made || threads == default_threads(), "the number of threads is fixed once the backend is in use");
  requested_threads = threads;
}

}  // namespace cpu

Backend& cpu_backend() {
  static const std::unique_ptr<Backend> backend = [] {
    cpu::backend_made = true;
    return cpu::make_cpu_backend(cpu::default_threads());
  }();
  return *backend;
}

}  // namespace supersonic
