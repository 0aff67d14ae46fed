// The chain interpreter's task: a ChainProgram with its operands resolved, passed to the kernel by
// value. Each thread carries a few neighbouring elements through the whole program; values live in
// slots of shared memory, a column a thread, so nothing waits for anybody. Bound by bandwidth for
// the few instructions of a usual chain: each operand is read once, each result written once.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace supersonic::cuda {

constexpr int kChainLoads = 14, kChainInstrs = 64, kChainStores = 4, kChainRank = 6,
              kChainAttrBytes = 8;

// How an operand lies along the innermost dimension.
enum class ChainAccess : std::uint8_t {
  one,
  vector,
  dense,
  strided
};  // vector: dense, and aligned for whole vectors

struct ChainTask {
  struct In {
    const void* data;
    std::int64_t strides[kChainRank];  // elements, over dims
    DType type;
    ChainAccess access;
    std::uint8_t slot;
  } in[kChainLoads];
  struct Instr {
    alignas(8) std::uint8_t attrs[kChainAttrBytes];
    std::uint8_t op;  // position in SUPERSONIC_MAP_OPS
    std::uint8_t slot, src[3];
  } instrs[kChainInstrs];
  struct Out {
    void* data;
    DType type;
    bool vector;  // aligned for whole vectors
    std::uint8_t slot;
  } out[kChainStores];
  std::int64_t dims[kChainRank];
  std::int64_t total;
  int loads, num_instrs, stores, rank, slots;
};

// width: elements a thread: 1, 4 or 8, and 1 or 2 in fp64; more than 1 asks that the innermost
// dimension be a multiple of it or the only one. 8 makes 16-byte accesses of 16-bit operands.
void run_chain(const ChainTask& task, bool f64, int width, int multiprocessors,
               cudaStream_t stream);

}  // namespace supersonic::cuda
