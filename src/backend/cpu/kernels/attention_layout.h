// How attention's work is cut into items, and how large the buffers of its workspace are, in 32-bit
// words. A column is one (token, query head of the group) pair: column c of kv head g is token c /
// group and query head g * group + c % group. Columns are taken in blocks, keys in blocks within
// them. All numbers depend on the shape alone, except for the parts of the backward pass and the
// scratch areas, which also depend on the number of threads.
#pragma once
#include "backend/cpu/kernels/attention.h"

namespace supersonic::cpu {

constexpr std::int64_t kKeyBlock = 64;      // keys in a tile
constexpr std::int64_t kColumnBlock = 128;  // columns that share the tile's transposed copy
constexpr std::int64_t kMaxGroup = 32;      // columns computed at a time, at most: two vectors
constexpr std::int64_t kFewColumns =
    8;  // up to so many have kernels of their own (attention_few.h)
constexpr std::int64_t kMaxSplits = 32;
constexpr std::int64_t kMaxParts = 16;

struct AttentionLayout {
  std::int64_t kv_heads, group, columns, blocks, d_padded;
  explicit AttentionLayout(const AttentionShape& s)
      : kv_heads(s.kv_heads),
        group(s.heads / s.kv_heads),
        columns(s.queries * group),
        blocks((columns + kColumnBlock - 1) / kColumnBlock),
        d_padded((s.d + 15) / 16 * 16) {}
  static constexpr std::int64_t align(std::int64_t words) { return (words + 15) / 16 * 16; }
};

struct AttentionForwardLayout : AttentionLayout {
  std::int64_t splits =
      1;  // pieces of the keys, where there are too few blocks to keep many threads busy
  std::int64_t scratch = 0;  // words a thread
  std::int64_t partial = 0;  // words of one column's unfinished result: output, maximum, sum
  std::int64_t threads;
  AttentionForwardLayout(const AttentionShape& s, int thread_count)
      : AttentionLayout(s), threads(thread_count) {
    const std::int64_t items = few() ? 1 : blocks * kv_heads;  // without splits
    if (items < 16 && items > 0) {
      const std::int64_t wanted = (kMaxSplits + items - 1) / items,
                         pieces = s.keys / (few() ? kKeyBlock : 512);
      splits = pieces < 1 ? 1 : pieces < wanted ? pieces : wanted;
    }
    // q and output (d x columns); k, v and what they are decoded to (d x keys); scores, probabilities; maximum, sum, lo, hi
    // of each column
    scratch =
        align(s.d * (2 * kColumnBlock + 3 * kKeyBlock) + 2 * kKeyBlock * kMaxGroup + 4 * kColumnBlock);
    if (few()) scratch = align(kv_heads * columns * 2 * (d_padded + 1) + (1 + s.d / 32) * kFewColumns * kKeyBlock);
    partial = splits > 1 || few() ? s.d + 2 : 0;
  }
  bool few() const { return columns <= kFewColumns; }
  std::size_t bytes() const {
    return static_cast<std::size_t>(threads * scratch + splits * kv_heads * columns * partial) * 4 +
           64;
  }
};

struct AttentionBackwardLayout : AttentionLayout {
  std::int64_t parts = 1;    // groups of column blocks, each with its own sums for dk and dv
  std::int64_t sums = 0;     // words of one part's dk (and as many of dv) for one kv head
  std::int64_t scratch = 0;  // words a thread
  std::int64_t threads;
  AttentionBackwardLayout(const AttentionShape& s, int thread_count)
      : AttentionLayout(s), threads(thread_count) {
    const auto uneven = [&] {
      return kv_heads * parts < 4 * threads && kv_heads * parts % threads != 0;
    };
    while (uneven() && parts < blocks && parts < kMaxParts) ++parts;
    sums = (s.keys + 16) * d_padded;  // room for the padding rows of the last tile
    // q, do transposed, dq (d x columns); q, do by rows (columns x padded d); k, v, k transposed (d
    // x keys); scores, dp, packed ds (keys x group); p, ds (keys x columns); lse, delta, lo, hi of
    // each column
    scratch = align(3 * s.d * kColumnBlock + 2 * d_padded * kColumnBlock + 3 * s.d * kKeyBlock +
                    3 * kKeyBlock * kMaxGroup + 2 * kKeyBlock * kColumnBlock + 4 * kColumnBlock);
  }
  std::size_t bytes() const {
    const std::int64_t ranges = 4 * kv_heads * parts;  // first and last key of each part's sums
    return static_cast<std::size_t>(threads * scratch + 2 * kv_heads * parts * sums + ranges) * 4 +
           64;
  }
};

}  // namespace supersonic::cpu
