// The kernel that runs fused elementwise chains over operands of any strides.
#pragma once
#include "core/kernel.h"

namespace supersonic::cuda {

extern const Kernel chain_kernel;

}  // namespace supersonic::cuda
