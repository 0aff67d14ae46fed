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

// cluster: blocks along x that share their memory (sm_90 and later), 1: none do.
struct Launch {
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  unsigned cluster = 1;
};

template <class... Parameters, class... Arguments>
void launch_overlapped(const char* name, void (*kernel)(Parameters...), const Launch& launch,
                       cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {launch.cluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = launch.grid, config.blockDim = launch.block;
  config.dynamicSmemBytes = launch.shared_bytes, config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = device_limits().capability < 90 ? 0 : launch.cluster > 1 ? 2 : 1;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

}  // namespace supersonic::cuda
