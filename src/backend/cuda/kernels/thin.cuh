// What the thin products share: how a long sum is cut, how its operand comes, how the sums of warps
// and blocks meet and leave.
//
// A block makes kLong results of the side that is not thin times 16 `tiles` of the side that is.
// Each of its warps has a part of the sum over K in registers, as mma.sync leaves it: the thin side
// is the product's 16 rows, the other side its columns, eight products wide. The order within
// either side is free as long as operands and results agree on it: row g (or g + 8) of tile i is
// the thin side's 2 tiles g + 2 i (or the one after it), so that a lane's share of the thin operand
// is one piece of memory.
//
// The large operand goes through a ring of stages in shared memory that is the warp's own, by
// asynchronous copies, so that no warp waits for another before the sums meet. Loads to registers
// do not work ahead here: the compiler gives all of them one scoreboard, and the first use of one
// waits for all. Rings of 64 to 128 KiB a multiprocessor suffice; larger ones were slower.
#pragma once
#include "backend/cuda/kernels/cluster.cuh"
#include "backend/cuda/kernels/scalar.h"
#include "backend/cuda/kernels/thin.h"
#include "backend/cuda/kernels/wgmma.cuh"

namespace supersonic::cuda {

constexpr int kThinWarps = 8, kThinThreads = 32 * kThinWarps, kLong = 64;

// stage: its bytes. Shared memory holds the warps' rings, in which the warps' sums lie afterwards,
// then what the cluster's blocks add up, then the barrier at which that arrives.
template <int tiles, int stage, int stages>
struct ThinSizes {
  static constexpr int thin = 16 * tiles, lane = 2 * tiles;  // of a block, of a lane
  static constexpr int pitch = thin + 4;                     // floats from one of kLong to the next
  static constexpr int stage_bytes = stage, depth = stages;
  static constexpr int ring_bytes = stages * stage, sum_bytes = kLong * pitch * 4;
  static constexpr int warp_bytes = ring_bytes > sum_bytes ? ring_bytes : sum_bytes;
  static constexpr int met_at = kThinWarps * warp_bytes, met_bytes = kLong * thin * 4,
                       barrier_at = met_at + met_bytes, shared_bytes = barrier_at + 16;
  static_assert(stage % 16 == 0 && warp_bytes % 16 == 0);
};

// Eight bf16 from any address, of which the first `count` are valid, or zeros.
__device__ inline uint4 load_pieces(const __nv_bfloat16* from, int count) {
  std::uint32_t words[4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e)
    if (e < count)
      words[e / 2] |= static_cast<std::uint32_t>(__bfloat16_as_ushort(from[e])) << (e % 2 * 16);
  return make_uint4(words[0], words[1], words[2], words[3]);
}
// The same to shared memory: asynchronously where the address is a multiple of 16.
template <bool aligned>
__device__ void bring_eight(char* to, const __nv_bfloat16* from, int count) {
  count = max(0, min(8, count));
  if constexpr (aligned) {
    copy_async(shared_address(to), from, count * 2);
  } else {
    *reinterpret_cast<uint4*>(to) = load_pieces(from, count);
  }
}

// Neighbours a and b of one row of Y; b only where it is inside.
__device__ inline void store_thin(const ThinResult& r, std::int64_t at, float a, float b,
                                  bool both) {
  a *= r.alpha, b *= r.alpha;
  if (r.accumulate) {
    a += load_float(r.y, r.type, at);
    if (both) b += load_float(r.y, r.type, at + 1);
  }
  if (both && r.type == DType::bf16 && (reinterpret_cast<std::uintptr_t>(r.y) + at * 2) % 4 == 0) {
    reinterpret_cast<std::uint32_t*>(r.y)[at / 2] = pack_bf16(a, b);
    return;
  }
  store_float(r.y, r.type, at, a);
  if (both) store_float(r.y, r.type, at + 1, b);
}

inline bool aligned_rows(const void* data, std::int64_t ld, std::int64_t cols) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && ld % 8 == 0 && cols % 8 == 0;
}

// log2 of the blocks of a cluster, which share a sum: as many as there are multiprocessors for,
// none with less than one part of the sum. A cluster lies within one GPC, and these have different
// numbers of multiprocessors: larger clusters than pairs leave some of them over, so that they must
// not be meant to fill the device.
inline int shift_for(std::int64_t blocks, std::int64_t parts) {
  const std::int64_t places = device_limits().multiprocessors;
  int shift = 0;
  while (shift < 3 && 2 << shift <= parts &&
         (blocks * 2 << shift) <= (shift == 0 ? places : places * 7 / 8))
    ++shift;
  return shift;
}

#if __CUDA_ARCH__ == 900
// A block's results, and its share of them: `share` from place rank * share on.
struct ThinBlock {
  const ThinResult& result;
  int first, end;  // along the long side: where the block begins, and Y ends
  int thin;        // that there are
  bool wide;       // Y's rows are the thin side's
  int shift, rank;

  __device__ int share() const { return kLong >> shift; }
  // f(index in Y, place in the share, which of the thin side, whether it takes the next one, too)
  template <int tiles, class F>
  __device__ void each_pair(F f) const {
    constexpr int pairs = 8 * tiles;
    const int begin = first + rank * share();
    for (int i = threadIdx.x; i < share() * pairs; i += kThinThreads) {
      const int along = wide ? (i * 2) & (share() - 1) : i / pairs,
                n = wide ? i >> (5 - shift) : i % pairs * 2;
      if (begin + along >= end || n >= thin) continue;
      const std::int64_t ld = result.ldy;
      f(wide ? n * ld + begin + along : (begin + along) * ld + n, along, n,
        wide ? begin + along + 1 < end : n + 1 < thin);
    }
  }
  // What the results are added to, into the L2 cache.
  template <int tiles>
  __device__ void prefetch() const {
    if (!result.accumulate) return;
    each_pair<tiles>([&](std::int64_t at, int, int, bool) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const char*>(result.y) +
                                                    at * (result.type == DType::f32 ? 4 : 2)));
    });
  }
};

// To be called by all threads before meet(), early.
template <class S>
__device__ void prepare_to_meet(const char* shared) {
  const std::uint32_t barrier = shared_address(shared + S::barrier_at);
  if (threadIdx.x == 0) {
    barrier_init(barrier, 1);
    barrier_expect(barrier, S::met_bytes);
  }
  begin_together();
}

// Adds the warps' sums, then the blocks', both in order, and stores the block's share. place(i) is
// where along the long side column i of the warps' products lies.
template <class S, int tiles, class Place>
__device__ void meet(const float (&sums)[tiles][8][4], char* memory, const ThinBlock& block,
                     Place place) {
  constexpr int quads = S::thin / 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, share = block.share();
  const std::uint32_t barrier = shared_address(memory + S::barrier_at);
  auto* to = reinterpret_cast<float*>(memory + warp * S::warp_bytes) + lane % 4 * 2 * S::pitch +
             lane / 4 * S::lane;
  __syncwarp();
#pragma unroll
  for (int j = 0; j < 8; ++j)
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int i = 0; i < tiles; ++i)
        *reinterpret_cast<float2*>(to + (j * 8 + h) * S::pitch + 2 * i) =
            make_float2(sums[i][j][h], sums[i][j][2 + h]);
  __syncthreads();
  all_began();
  auto* met = reinterpret_cast<float*>(memory + S::met_at);
#pragma unroll
  for (int i = threadIdx.x; i < kLong * quads; i += kThinThreads) {
    const char* from = memory + (i / quads * S::pitch + i % quads * 4) * 4;
    float4 sum = *reinterpret_cast<const float4*>(from);
#pragma unroll
    for (int w = 1; w < kThinWarps; ++w) {
      const float4 v = *reinterpret_cast<const float4*>(from + w * S::warp_bytes);
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    const int along = place(i / quads), line = block.rank * share + (along & (share - 1));
    store_four_at(along >> (6 - block.shift), shared_address(met + line * S::thin + i % quads * 4),
                  sum, barrier);
  }
  barrier_wait(barrier, 0);
  block.each_pair<tiles>([&](std::int64_t at, int along, int n, bool both) {
    float a = 0, b = 0;
    const float* part = met + along * S::thin + n;
    for (int z = 0; z < 1 << block.shift; ++z, part += share * S::thin)
      a += part[0], b += part[both ? block.wide ? S::thin : 1 : 0];
    store_thin(block.result, at, a, b, both);
  });
}
#endif

}  // namespace supersonic::cuda
