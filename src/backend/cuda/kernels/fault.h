// How device code reports an input that it cannot use, such as a token id outside of the table: the first report wins, the kernel
// leaves that element out, and the host throws at its next sync(). Also the launch check that every launcher ends with.
// Plain header: nothing of core, so that .cu files stay quick to compile.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace supersonic::cuda {

enum class FaultKind : std::uint32_t { none, embedding_id, cache_row, label, logits };

struct FaultReport {  // in host memory that the device sees
  std::uint32_t kind;
  std::int64_t value, position, limit;
};
struct FaultSink {
  unsigned* claimed = nullptr;    // device memory, 0 until the first report
  FaultReport* report = nullptr;
};

#if defined(__CUDACC__)
__device__ inline void report_fault(FaultSink sink, FaultKind kind, std::int64_t value, std::int64_t position,
                                    std::int64_t limit) {
  if (atomicCAS(sink.claimed, 0u, 1u) != 0u) return;
  volatile FaultReport* r = sink.report;
  r->value = value;
  r->position = position;
  r->limit = limit;
  __threadfence_system();
  r->kind = static_cast<std::uint32_t>(kind);
}
#endif

// Throws Error with the call's name and the device's words; memory errors as ErrorKind::memory.
void check(cudaError_t status, const char* call);
// After each <<<>>>: what the launch itself got wrong.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace supersonic::cuda
