// How chains run on a device: common ones by kernels of their own, compiled ahead (the catalogue),
// all others by an interpreter.
//
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
  bool few;  // at most four loads, all whole vectors of at most 16 bytes over a single dimension
};

// width: elements a thread: 1, 4 or 8, and 1 or 2 in fp64; more than 1 asks that the innermost
// dimension be a multiple of it or the only one. 8 makes 16-byte accesses of 16-bit operands.
void run_chain(const ChainTask& task, bool f64, int width, int multiprocessors,
               cudaStream_t stream);

// --- the catalogue ---
constexpr int kKnownLoads = 3, kKnownInstrs = 5, kKnownStores = 3;

// A program without its attributes: the position in SUPERSONIC_MAP_OPS and the sources of each
// instruction.
struct ChainCode {
  std::uint8_t loads = 0, instrs = 0, stores = 0;
  struct Instr {
    std::uint8_t op = 0;
    std::int8_t src[3] = {-1, -1, -1};
    bool operator==(const Instr&) const = default;
  } instr[kKnownInstrs] = {};
  std::int8_t store[kKnownStores] = {};
  bool operator==(const ChainCode&) const = default;
};

// Operands are dense, of one type, and so are results; all are aligned to kKnownAlign bytes.
struct KnownChainTask {
  const void* in[kKnownLoads];
  void* out[kKnownStores];
  struct {
    alignas(8) std::uint8_t bytes[kChainAttrBytes];
  } attrs[kKnownInstrs];
  std::int64_t total;
};
constexpr int kKnownAlign = 32;
using KnownChain = void (*)(const KnownChainTask& task, cudaStream_t stream);

// The catalogue's launcher of a program with operands and results of these types; null: it has
// none.
KnownChain find_known_chain(const ChainCode& code, DType in, DType out);

}  // namespace supersonic::cuda
