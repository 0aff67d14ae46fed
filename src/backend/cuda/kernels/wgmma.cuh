// Hopper's own instructions: barriers in shared memory that count arriving bytes, the copy engine
// that fills tiles (TMA), and the products of a whole warpgroup (wgmma) that read them. PTX
// ISA 9.0, sections 9.7.13 and 9.7.15; sm_90a alone.
#pragma once
#include <cuda.h>

#include "backend/cuda/kernels/mma.cuh"

namespace supersonic::cuda {

__device__ inline void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void barrier_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Returns once the barrier's phase of this parity is complete.
__device__ inline void barrier_wait(std::uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// A box of a matrix, its first element at column c and row r, into shared memory; its bytes arrive
// at the barrier.
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap* map, int c, int r,
                                std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, "
      "{%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(c), "r"(r), "r"(barrier)
      : "memory");
}

// As copy_box(), to the same address of every block of the cluster in `blocks`, at the barrier of
// each.
__device__ inline void copy_box_to(std::uint16_t blocks, std::uint32_t to, const CUtensorMap* map,
                                   int c, int r, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(c), "r"(r), "r"(barrier), "h"(blocks)
      : "memory");
}

// Arrives at the barrier as it lies in block `rank` of the cluster.
__device__ inline void barrier_arrive_at(int rank, std::uint32_t barrier) {
  std::uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(barrier), "r"(rank));
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory");
}

template <int registers>
__device__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// How a tile lies: boxes of 128-byte rows, swizzled, eight rows to a group of 1,024 bytes. Where K
// runs along the rows, the rows are m or n. Where K runs down, the rows are k, and there is one box
// for each 64 of m or n, `box_bytes` after the one before.
template <bool tall>
__device__ std::uint64_t tile_descriptor(std::uint32_t address, int box_bytes) {
  constexpr std::uint64_t stride = 1024 / 16, swizzle128 = 1;
  const std::uint64_t leading = tall ? static_cast<std::uint64_t>(box_bytes / 16) : 1;
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | leading << 16 | stride << 32 |
         swizzle128 << 62;
}
// Bytes from one 16 of K to the next.
template <bool tall>
constexpr int kDepthBytes = tall ? 2048 : 32;

__device__ inline void warpgroup_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void warpgroup_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// A matrix of bf16, `sizes` {columns, rows}, in boxes of 64 columns (128 swizzled bytes) and
// `box_rows` rows; zeros outside of it. The address and the stride in bytes are multiples of 16.
CUtensorMap bf16_boxes(const void* data, std::int64_t columns, std::int64_t rows, std::int64_t ld,
                       int box_rows);
// The same of bytes, in boxes of 128 columns.
CUtensorMap byte_boxes(const void* data, std::int64_t columns, std::int64_t rows, std::int64_t ld,
                       int box_rows);

}  // namespace supersonic::cuda
