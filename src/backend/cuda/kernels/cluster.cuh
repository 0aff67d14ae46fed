// Clusters of blocks, from sm_90 on: blocks that run at once and read each other's shared memory.
// PTX ISA 9.0, sections 9.7.13.4 and 7.1.9.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/fault.h"

namespace supersonic::cuda {

#if __CUDA_ARCH__ >= 900
// All threads of all blocks of the cluster arrive; what they stored before is seen by all after.
__device__ inline void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// The two floats at a shared address of this block, as they are in block `rank` of the cluster.
__device__ inline float2 load_pair_of(int rank, std::uint32_t address) {
  std::uint32_t there;
  float2 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "r"(there)
               : "memory");
  return v;
}

// The two halves of cluster_sync(): a block that has arrived may end, where its memory is not read.
__device__ inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Stores to where block `rank` of the cluster has what is here at `to`, in shared memory.
__device__ inline void store_at(int rank, float* to, float value) {
  std::uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(there)
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
}
#endif

// Launches blocks in clusters of `cluster` neighbours along x; the grid is a multiple of it.
template <class Problem>
void launch_clusters(void (*kernel)(Problem), const Problem& problem, dim3 grid, int cluster,
                     int threads, std::size_t shared_bytes, cudaStream_t stream, const char* name) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, problem), name);
}

}  // namespace supersonic::cuda
