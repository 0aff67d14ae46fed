// Tiles and softmax pieces of the tensor-core attention kernels. A warp owns 16 rows; of a product
// (16, 8) a thread holds columns 2 (lane % 4) and the next, of rows lane / 4 and lane / 4 + 8.
// Products of that layout are, packed to bf16, the left operand of the next product, so
// probabilities never touch shared memory.
#pragma once
#include "backend/cuda/kernels/attention_common.cuh"
#include "backend/cuda/kernels/mma.cuh"

namespace supersonic::cuda {

// Rows first .. first + rows - 1 of one head, D bf16 values each, into a swizzled tile; zeros past
// `end`. aligned: 16-byte chunks.
template <int D, int rows, int threads>
__device__ void copy_rows(char* tile, const __nv_bfloat16* head, std::int64_t stride, int first,
                          int end, bool aligned) {
  constexpr int chunks = D / 8;
#pragma unroll
  for (int i = 0; i < rows * chunks / threads; ++i) {
    const int id = static_cast<int>(threadIdx.x) + i * threads, row = id / chunks,
              chunk = id % chunks;
    const bool valid = first + row < end;
    const __nv_bfloat16* from = head + (valid ? (first + row) * stride + chunk * 8 : 0);
    char* to = tile + swizzled<chunks>(row, chunk);
    if (aligned) {
      copy_async(shared_address(to), from, valid ? 16 : 0);
    } else {
      for (int e = 0; e < 8; ++e)
        reinterpret_cast<__nv_bfloat16*>(to)[e] = valid ? from[e] : __float2bfloat16_rn(0.0f);
    }
  }
}

// scores (16, columns) = rows m.. of A (.., D) * rows 0.. of B (columns, D)^T; both tiles lie with
// D along their rows.
template <int D, int columns>
__device__ void row_products(float (&out)[columns / 8][4], std::uint32_t a_tile, int m,
                             std::uint32_t b_tile) {
#pragma unroll
  for (int j = 0; j < columns / 8; ++j) out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0;
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    std::uint32_t a[4];
    fragment_a<false, D / 8>(a, a_tile, m, k);
#pragma unroll
    for (int n = 0; n < columns; n += 16) {
      std::uint32_t b[4];
      fragment_b<false, D / 8>(b, b_tile, n, k);
      multiply_add(out[n / 8], a, b[0], b[1]);
      multiply_add(out[n / 8 + 1], a, b[2], b[3]);
    }
  }
}

// sum (16, D) += p (16, depth), packed on the way, * rows 0.. of B (depth, D).
template <int D, int depth>
__device__ void add_product(float (&sum)[D / 8][4], const float (&p)[depth / 8][4],
                            std::uint32_t b_tile) {
#pragma unroll
  for (int k = 0; k < depth; k += 16) {
    const std::uint32_t a[4] = {
        pack_bf16(p[k / 8][0], p[k / 8][1]), pack_bf16(p[k / 8][2], p[k / 8][3]),
        pack_bf16(p[k / 8 + 1][0], p[k / 8 + 1][1]), pack_bf16(p[k / 8 + 1][2], p[k / 8 + 1][3])};
#pragma unroll
    for (int n = 0; n < D; n += 16) {
      std::uint32_t b[4];
      fragment_b<true, D / 8>(b, b_tile, n, k);
      multiply_add(sum[n / 8], a, b[0], b[1]);
      multiply_add(sum[n / 8 + 1], a, b[2], b[3]);
    }
  }
}

// The warp's rows first + lane / 4 (+ 8) of a result (.., D), times a factor each.
template <int D>
__device__ void store_rows(__nv_bfloat16* head, std::int64_t stride, int first, int end,
                           const float (&sum)[D / 8][4], float factor0, float factor1) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane / 4 + 8 * half;
    if (row >= end) continue;
    const float factor = half ? factor1 : factor0;
    __nv_bfloat16* to = head + row * stride + lane % 4 * 2;
    const bool pairs = reinterpret_cast<std::uintptr_t>(to) % 4 == 0;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      const float a = sum[j][2 * half] * factor, b = sum[j][2 * half + 1] * factor;
      if (pairs) {
        *reinterpret_cast<std::uint32_t*>(to + j * 8) = pack_bf16(a, b);
      } else {
        to[j * 8] = __float2bfloat16_rn(a), to[j * 8 + 1] = __float2bfloat16_rn(b);
      }
    }
  }
}

// Keys that all rows of the warp see; seen: of the thread's two rows.
__device__ inline KeyRange warp_inner_range(const KeyRange (&seen)[2]) {
  KeyRange all{max(seen[0].lo, seen[1].lo), min(seen[0].hi, seen[1].hi)};
  for (int step = 16; step >= 4; step /= 2) {
    all.lo = max(all.lo, __shfl_xor_sync(0xffffffffu, all.lo, step));
    all.hi = min(all.hi, __shfl_xor_sync(0xffffffffu, all.hi, step));
  }
  return all;
}

// A place in a ring of tiles that are brought while others are worked on.
template <int stages>
struct StageRing {
  int stage = 0, parity = 0;
  __device__ void next() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

constexpr float kLog2E = 1.44269504088896340736f;

__host__ __device__ inline bool aligned_rows(const void* p, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && stride % 8 == 0;
}

}  // namespace supersonic::cuda
