// Policy: what a plan may do to meet a memory budget, and how it computes. The policy loop (plan.cpp) tries the levels in order
// of cost and takes the first whose peak fits; nothing is timed inside it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/compute.h"

namespace supersonic {

struct Policy {
  std::size_t budget = SIZE_MAX;  // bytes on the compute place: of the plan's arena and of `taken`
  std::size_t taken = 0;          // by what outlives the plan: weights, parameters, optimizer
  bool remat_cheap = true;        // level 0 may already recompute norms, activations and casts
  int checkpoint_regions = -1;    // -1: as many as the budget asks for; n: the last n... none are kept inside
  bool least = false;             // the plan that needs least while copies overlap with computation, whatever the budget
  bool offload = true;            // may send region boundaries to host memory (backends with a place of their own)
  bool fuse = true;               // elementwise chains, matmul + add
  bool prepare = true;            // operand forms shared by their readers
  bool reuse = true;              // buffers share memory once dead
  Compute compute = Compute::fp32;
  std::uint64_t key() const;      // for the plan cache
};

}  // namespace supersonic
