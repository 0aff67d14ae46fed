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

// The number at a shared address of this block, as it is in block `rank` of the cluster.
__device__ inline unsigned long long load_long_of(int rank, std::uint32_t address) {
  std::uint32_t there;
  unsigned long long v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(v) : "r"(there) : "memory");
  return v;
}
#endif

// Launches blocks in clusters of `cluster` neighbours along x; the grid is a multiple of it.
// Clusters of one are launched as none: blocks then go to multiprocessors in another order, in
// which the tiles of a product, that share operands with those before, take 8 to 15 % less time.
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
  config.numAttrs = cluster > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, problem), name);
}

}  // namespace supersonic::cuda
