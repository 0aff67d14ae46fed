// Clusters of blocks, from sm_90 on: blocks that run at once and read each other's shared memory.
// PTX ISA 9.0, sections 9.7.13.4 and 7.1.9.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/fault.h"

namespace supersonic::cuda {

#if __CUDA_ARCH__ >= 900
// All threads of all blocks of the cluster arrive; what they stored before is seen by all after.
// That takes a fence over the whole device; begin_together() and store_four_at() do without.
__device__ inline void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// The block runs, and its barriers in shared memory, made by this thread or another one, are ready.
__device__ inline void begin_together() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
// Returns once that holds for all blocks of the cluster.
__device__ inline void all_began() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Four floats to a shared address of this block, but in block `rank` of the cluster, where they
// count as 16 bytes that arrive at the barrier.
__device__ inline void store_four_at(int rank, std::uint32_t address, float4 v,
                                     std::uint32_t barrier) {
  asm volatile(
      "{\n"
      ".reg .b32 there, full;\n"
      "mapa.shared::cluster.u32 there, %0, %2;\n"
      "mapa.shared::cluster.u32 full, %1, %2;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], {%3, %4, %5, %6}, "
      "[full];\n"
      "}" ::"r"(address),
      "r"(barrier), "r"(rank), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
      : "memory");
}

// The number at a shared address of this block, as it is in block `rank` of the cluster.
__device__ inline unsigned long long load_long_of(int rank, std::uint32_t address) {
  std::uint32_t there;
  unsigned long long v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(v) : "r"(there) : "memory");
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

// Launches blocks in clusters of `cluster` neighbours along x; the grid is a multiple of it. A
// cluster of one is a cluster still: without it store_four_at() is an illegal instruction.
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

// Pairs, or blocks in no cluster: these go to multiprocessors in another order than clusters of
// one, in which the tiles of a product, that share operands with those before, take 8 to 15 % less
// time.
template <int pair, class Problem>
void launch_tiles(void (*kernel)(Problem), const Problem& problem, unsigned blocks, int threads,
                  std::size_t shared_bytes, cudaStream_t stream, const char* name) {
  if constexpr (pair > 1) {
    launch_clusters(kernel, problem, dim3(blocks), pair, threads, shared_bytes, stream, name);
  } else {
    kernel<<<blocks, threads, shared_bytes, stream>>>(problem);
    check_launch(name);
  }
}

}  // namespace supersonic::cuda
