// ChainProgram: a fused run of elementwise operations. Values are numbered loads first, then instructions. It is computed in
// fp32 (fp64 when an operand is fp64) and rounded only at its stores. The iteration space is the shape of its results; a load
// has strides over that space, 0 where it is broadcast. Below it, what the executors of all backends need to know of one.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/op.h"

namespace supersonic {

struct Problem;

constexpr int kMaxChainLoads = 14, kMaxChainInstructions = 64, kMaxChainStores = kMaxOutputs;

struct ChainInstr {
  const Op* op = nullptr;
  Attrs attrs;
  std::int16_t src[3] = {-1, -1, -1};
};

struct ChainProgram {
  int loads = 0;
  std::vector<ChainInstr> instrs;
  std::vector<std::int16_t> stores;  // value numbers
};

std::string to_string(const ChainProgram& program);

// The iteration space with dimensions merged along which every load walks evenly, and those of length 1 left out; at least one.
// Results are dense over it.
struct ChainSpace {
  int rank = 0;
  std::int64_t dims[kMaxRank];
  std::int64_t strides[kMaxChainLoads][kMaxRank];  // of the loads, in elements
};
ChainSpace chain_space(const Problem& problem);
bool chain_in_fp64(const Problem& problem);

// When value v is read last: the number of an instruction, that of the instructions where a store reads it, -1: never.
std::vector<int> last_uses(const ChainProgram& program);

// The position of an elementwise operation in SUPERSONIC_MAP_OPS (map_ops.h); generated.
int map_index(const Op& op);

}  // namespace supersonic
