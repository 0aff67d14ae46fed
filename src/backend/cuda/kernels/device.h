// What launch code asks of the device: its limits, and shared memory above the default.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "backend/cuda/kernels/fault.h"

namespace supersonic::cuda {

// What kernels choose their shapes by; read once when the device is opened.
struct DeviceLimits {
  int capability = 0;  // 10 · major + minor: 90 is Hopper
  int multiprocessors = 0;
  std::size_t shared_bytes = 0;  // per block, after cudaFuncSetAttribute
  std::size_t l2_bytes = 0;
};
// The limits while a plan is built, where no lane is at hand (workspace(), reject()).
const DeviceLimits& device_limits();

// Lets a kernel use so many bytes of dynamic shared memory.
template <class Kernel>
void allow_shared(Kernel* kernel, std::size_t bytes) {
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

}  // namespace supersonic::cuda
