// Sums and maxima over a warp and a block, in an order that depends on the block's size alone.
#pragma once
#include <cuda_runtime_api.h>

namespace supersonic::cuda {

struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

template <class T, class Join>
__device__ inline T reduce_warp(T x, Join join) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = join(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

// Every thread gets the result. `scratch`: 32 elements of shared memory; whole warps only.
// `neutral` fills up.
template <class T, class Join>
__device__ inline T reduce_block(T x, Join join, T neutral, T* scratch) {
  x = reduce_warp(x, join);
  if (blockDim.x <= 32) return x;
  __syncthreads();  // an earlier reduction may still be read
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  return reduce_warp(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : neutral,
                     join);
}

}  // namespace supersonic::cuda
