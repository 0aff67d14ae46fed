// ChainProgram: a fused run of elementwise operations. Values are numbered loads first, then instructions. It is computed in
// fp32 (fp64 when an operand is fp64) and rounded only at its stores. The iteration space is the shape of its results; a load
// has strides over that space, 0 where it is broadcast.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/op.h"

namespace supersonic {

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

}  // namespace supersonic
