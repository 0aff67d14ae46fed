// How Hopper's attention kernels whose queries stand still share out their work: a block takes the
// same 128 queries of a few heads, one head after the other, so that what the queries see is looked
// up once and the next head's tiles arrive while the last one's results leave. Blocks start in
// their order as multiprocessors become free. How long each one's rows are is known on the device
// alone; in a sequence the last queries see the most keys, so the last blocks start first, and
// short ones fill up at the end.
#pragma once
#include "backend/cuda/kernels/attention_common.cuh"

namespace supersonic::cuda {

constexpr int kBlockQueries = 128;

struct RowBlocks {
  int heads_each = 1;    // heads of a block
  bool by_head = false;  // the order: all blocks of a few heads, then the next ones
  int count = 0;
};

inline RowBlocks row_blocks(const AttentionShape& s) {
  RowBlocks b;
  const std::int64_t tiles = ceil_div(s.queries, kBlockQueries) * s.heads;
  for (const int each : {4, 2}) {
    b.heads_each = each;
    if (s.heads % each == 0 && 2 * tiles >= 3 * each * device_limits().multiprocessors) break;
    b.heads_each = 1;
  }
  b.count = static_cast<int>(tiles / b.heads_each);
  // Keys and values of all heads at once would not stay in the L2 cache.
  b.by_head = std::int64_t{4} * s.keys * s.kv_heads * s.d >
              2 * static_cast<std::int64_t>(device_limits().l2_bytes);
  return b;
}

// This block's first head and first query.
struct RowPlace {
  int head, first;
};
__device__ inline RowPlace row_place(const RowBlocks& b, const AttentionShape& s) {
  const int sets = s.heads / b.heads_each, rows = b.count / sets,
            number = static_cast<int>(blockIdx.x);
  const int set = b.by_head ? number / rows : number % sets,
            row = b.by_head ? number % rows : number / sets;
  return {set * b.heads_each, (rows - 1 - row) * kBlockQueries};
}

// Two warpgroups, 1 and 2 of the block, that queue their products in turns, so that one's run while
// the other works on its sums. Each takes as many turns as it gives.
struct Turns {
  int mine;  // 0 or 1
  __device__ void begin() const {
    if (mine == 1) give();
  }
  __device__ void take() const { asm volatile("bar.sync %0, 256;" ::"r"(1 + mine) : "memory"); }
  __device__ void give() const {
    asm volatile("bar.arrive %0, 256;" ::"r"(1 + (mine ^ 1)) : "memory");
  }
};

}  // namespace supersonic::cuda
