// The CPU backend: one place (host), one queue. Lanes run at once, so events need nothing.
#pragma once
#include "backend/cpu/pool.h"
#include "core/backend.h"

namespace supersonic::cpu {

struct CpuLane : Lane {
  explicit CpuLane(Pool& p) : pool(p) {}
  Pool& pool;
};
inline Pool& pool_of(Lane& lane) { return static_cast<CpuLane&>(lane).pool; }

// Threads of the process's backend; before its first use, or the call fails. 0: as many as the machine has.
void set_threads(int threads);
int default_threads();
std::unique_ptr<Backend> make_cpu_backend(int threads);

// Runs a fused chain over operands of any strides.
extern const Kernel chain_kernel;
// Address-stable memory that grows; pages come with their first use.
std::unique_ptr<Arena> host_arena();

}  // namespace supersonic::cpu
