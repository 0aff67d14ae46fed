// Kernels that begin while the one before them ends (programmatic dependent launch, sm_90 and
// later). Such a kernel calls after_previous() before it touches anything that an earlier kernel
// of its stream wrote or reads what it will write; what comes before that call runs early. Each
// waits, so order holds over any number of them. A kernel that calls let_next_start() allows the
// next one's blocks onto the device as soon as there is room.
#pragma once
#include "backend/cuda/kernels/device.cuh"

namespace supersonic::cuda {

__device__ inline void after_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <class... Parameters, class... Arguments>
void launch_overlapped(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                       std::size_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes, config.stream = stream;
  config.attrs = &early;
  static const bool off = getenv("NO_PDL");
  config.numAttrs = device_limits().capability >= 90 && !off ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

}  // namespace supersonic::cuda
