// The chain interpreter's task: a ChainProgram with its operands resolved to plain data, so that the code compiled for one
// instruction set sees nothing but this. Dimensions are collapsed as far as every operand's strides allow; the last one is the
// inner loop, along which an operand is dense (stride 1), one value (0) or gathered.
#pragma once
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/chain.h"
#include "core/dtype.h"

namespace supersonic::cpu {

constexpr int kChainTile = 512;  // elements of one register: 2 KiB in fp32

struct ChainTask {
  struct In {
    const void* data;
    DType type;
    std::int64_t strides[kMaxRank];  // elements, over dims
  } in[kMaxChainLoads];
  struct Instr {
    int op;  // position in SUPERSONIC_MAP_OPS
    const Attrs* attrs;
    std::int16_t src[3];
  } instrs[kMaxChainInstructions];
  struct Out {
    void* data;
    DType type;
    std::int16_t value;
  } out[kMaxChainStores];
  int loads = 0, num_instrs = 0, stores = 0, rank = 0;
  std::int64_t dims[kMaxRank];
};

namespace avx512 { void run_chain(Pool& pool, const ChainTask& task); }
namespace avx2 { void run_chain(Pool& pool, const ChainTask& task); }
namespace portable { void run_chain(Pool& pool, const ChainTask& task); }
void run_chain_f64(Pool& pool, const ChainTask& task);

}  // namespace supersonic::cpu
