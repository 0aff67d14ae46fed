// Tensor-core and asynchronous-copy instructions of sm_80 and later, and the swizzled tiles in
// shared memory that they read.
#pragma once
#include "backend/cuda/kernels/device.cuh"

namespace supersonic::cuda {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes, of which the first `bytes` come from global memory and the others are zero.
__device__ inline void copy_async(std::uint32_t to, const void* from, int bytes) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
#endif
}
// Four bytes, or zeros.
__device__ inline void copy_word_async(std::uint32_t to, const void* from, bool live) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from),
               "r"(live ? 4 : 0)
               : "memory");
#endif
}
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int pending>
__device__ void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

__device__ inline void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// sum (16, 8) += a (16, 16) * b (16, 8), bf16 operands.
__device__ inline void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// A tile of bf16 in shared memory: rows of `chunks` 16-byte chunks (a multiple of 8), the chunk's
// low three bits mixed with the row's, so that ldmatrix reads eight rows of one column of chunks
// without bank conflicts.
template <int chunks>
__device__ std::uint32_t swizzled(int row, int chunk) {
  return static_cast<std::uint32_t>((row * chunks + (chunk ^ (row & 7))) * 16);
}

// Fragments of an operand whose tile has K along its rows' length (`wide`) or down its rows
// (`tall`). A fragment covers 16 rows (m, or n twice 8) and 16 of K. For A the registers are (m,
// k), (m + 8, k), (m, k + 8), (m + 8, k + 8); for B they are (n, k), (n, k + 8), (n + 8, k), (n +
// 8, k + 8).
template <bool tall, int chunks>
__device__ void fragment_a(std::uint32_t (&r)[4], std::uint32_t tile, int m, int k) {
  const int lane = threadIdx.x % 32;
  if constexpr (tall) {
    load_matrices_transposed(
        r, tile + swizzled<chunks>(k + lane % 8 + lane / 16 * 8, m / 8 + lane / 8 % 2));
  } else {
    load_matrices(r, tile + swizzled<chunks>(m + lane % 16, k / 8 + lane / 16));
  }
}
template <bool tall, int chunks>
__device__ void fragment_b(std::uint32_t (&r)[4], std::uint32_t tile, int n, int k) {
  const int lane = threadIdx.x % 32;
  if constexpr (tall) {
    load_matrices_transposed(r, tile + swizzled<chunks>(k + lane % 16, n / 8 + lane / 16));
  } else {
    load_matrices(r, tile + swizzled<chunks>(n + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2));
  }
}

}  // namespace supersonic::cuda
