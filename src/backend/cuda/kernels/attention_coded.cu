// Attention of a few queries over a coded KV cache (decoding), on the tensor cores: FP8 or Q8_0,
// bf16 queries, heads of 64, 128 and 256. The keys are split over blocks as in attention_split.cu.
// A warp takes 16 keys of one kv head at a time, for all queries and heads of the group (8 or 16
// columns). Their codes go to shared memory as they lie, three tiles deep; scores (keys, columns)
// and outputs (D, columns) are products with the codes as the left operand, so that one weight a
// key and column is turned around between them (movmatrix), and nothing else moves between lanes.
//
// Rounding: codes are exact, queries too (binary16 after a power of two has been taken out of each
// row), the weights have 11 bits and so have values of Q8_0 times their scale; sums are fp32. Which
// number of a head a product's position stands for is free: lane (g, t) takes neighbours, g and t
// as in the fragments. Bytes moved: the codes once; limit: the memory's bandwidth.
#include <cooperative_groups.h>

#include <algorithm>

#include "backend/cuda/kernels/attention_coded.cuh"
#include "backend/cuda/kernels/attention_common.cuh"
#include "backend/cuda/kernels/overlap.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kFewQueries = 4, kTile = 16, kStages = 3,
              kMostSplits = 512, kMostCluster = 8;
// Blocks that a multiprocessor has room for.
constexpr int blocks_at_once(int d, int columns) { return d == 256 || columns > 8 ? 2 : 4; }
constexpr float kLift = 14;  // weights are up to 2^14: those of 2^-28 keep their bits

template <bool q8, int D>
constexpr int kTileBytes = 2 * kTile* CodedRow<q8, D>::pitch;  // keys, then values
constexpr int shared_bytes(int d) {
  return kWarps * kStages * 2 * kTile * (d + 16) + 16;  // a word may be read past a row
}

// The (query, head) pair of a column, among those of a kv head.
struct Column {
  bool valid;
  int query, head;
};
__device__ Column column_of(const AttentionShape& s, int pair) {
  const int share = s.heads / s.kv_heads, query = pair / share;
  return {query < s.queries, query, static_cast<int>(blockIdx.y) * share + pair % share};
}

// One row of q as the right operand of all steps, and the power of two that was taken out of it.
template <int D>
__device__ float load_query(const AttentionForward& a, const Column& column, int t, bool fast,
                            std::uint32_t (&out)[D / 16][2]) {
  const std::int64_t at = column.query * a.q_stride + column.head * D;
  const auto* q = static_cast<const std::uint16_t*>(a.q) + at;
  float largest = 0;
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    const int c = 16 * i + 4 * t;
    uint2 x = make_uint2(0, 0);
    if (column.valid) {
      if (fast) {
        x = *reinterpret_cast<const uint2*>(q + c);
      } else {
        x.x = q[c] | static_cast<std::uint32_t>(q[c + 1]) << 16;
        x.y = q[c + 2] | static_cast<std::uint32_t>(q[c + 3]) << 16;
      }
    }
    out[i][0] = x.x, out[i][1] = x.y;
#pragma unroll
    for (int k = 0; k < 2; ++k)
      largest = fmaxf(largest, fmaxf(fabsf(low_bf16(out[i][k])), fabsf(high_bf16(out[i][k]))));
  }
  largest = max_of_four(largest);
  const int exponent = min(max(static_cast<int>(__float_as_uint(largest) >> 23), 1), 253);
  const float inverse = __uint_as_float(static_cast<unsigned>(254 - exponent) << 23);
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
#pragma unroll
    for (int k = 0; k < 2; ++k)
      out[i][k] = pack_f16(low_bf16(out[i][k]) * inverse, high_bf16(out[i][k]) * inverse);
  return __uint_as_float(static_cast<unsigned>(exponent) << 23);
}

// score (16 keys, columns) of a tile: keys g and g + 8, columns 2t and 2t + 1 of each eight. Rows
// of keys whose numbers differ by eight begin equally far into 16 bytes, so that one place is
// enough.
template <bool q8, int D, int eights>
__device__ void tile_scores(const char* keys, int g, int t,
                            const std::uint32_t (&q)[eights][D / 16][2],
                            float (&score)[eights][4]) {
  constexpr int pitch = CodedRow<q8, D>::pitch;
  const char *low = keys + g * pitch, *high = low + 8 * pitch;
#pragma unroll
  for (int b = 0; b < D / 32; ++b) {
    float part[eights][4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t x = four_codes<q8>(low, b, 4 * half + t),
                          y = four_codes<q8>(high, b, 4 * half + t);
      const std::uint32_t codes[4] = {pair_of<q8, false>(x), pair_of<q8, false>(y),
                                      pair_of<q8, true>(x), pair_of<q8, true>(y)};
#pragma unroll
      for (int n = 0; n < eights; ++n)
        multiply_add_f16(q8 ? part[n] : score[n], codes, q[n][2 * b + half][0],
                         q[n][2 * b + half][1]);
    }
    if constexpr (q8) {
      const float d0 = block_scale(low, b), d1 = block_scale(high, b);
#pragma unroll
      for (int n = 0; n < eights; ++n) {
        score[n][0] += d0 * part[n][0], score[n][1] += d0 * part[n][1];
        score[n][2] += d1 * part[n][2], score[n][3] += d1 * part[n][3];
      }
    }
  }
}

// out (D, columns) += values (D, 16 keys) * weights (16 keys, columns): in out[m], numbers 2m and
// 2m + 1 of eighth g of a head. even, odd: where row 0 would begin, as even and odd rows lie.
template <bool q8, int D, int eights>
__device__ void add_values(const char* even, const char* odd, int g, int t,
                           const std::uint32_t (&weights)[eights][2],
                           float (&out)[eights][D / 16][4]) {
  constexpr int pitch = CodedRow<q8, D>::pitch, words = D / 32;
  std::uint32_t codes[4][words], scales[2] = {};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const char* row = (k % 2 ? odd : even) + (2 * t + k / 2 * 8 + k % 2) * pitch;
    eighth_of_row<q8, D>(row, g, codes[k]);
    if constexpr (q8) scales[k / 2] |= half_at(row + g * (D / 8) / 32 * 34) << 16 * (k % 2);
  }
#pragma unroll
  for (int i = 0; i < words; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const unsigned select = half ? 0x7362 : 0x5140;  // key, next key; of either number
      const std::uint32_t x = __byte_perm(codes[0][i], codes[1][i], select),
                          y = __byte_perm(codes[2][i], codes[3][i], select);
      std::uint32_t pairs[4] = {pair_of<q8, false>(x), pair_of<q8, true>(x), pair_of<q8, false>(y),
                                pair_of<q8, true>(y)};
      if constexpr (q8) {
#pragma unroll
        for (int k = 0; k < 4; ++k) pairs[k] = scaled_pair(pairs[k], scales[k / 2]);
      }
#pragma unroll
      for (int n = 0; n < eights; ++n)
        multiply_add_f16(out[n][2 * i + half], pairs, weights[n][0], weights[n][1]);
    }
}

// Which number of a head a row of parts has at a place: (m, g, e) there, (g, m, e) in the head.
template <int D>
__device__ int number_at(int place) {
  return place / 2 % 8 * (D / 8) + place / 16 * 2 + place % 2;
}

// Element c of a row's result, from the sum of its weights and of its weighted values.
__device__ void store_result(const AttentionForward& a, const Column& column, int c, float top,
                             float total, float out) {
  store_float(a.o, a.type, column.query * a.o_stride + column.head * a.shape.d + c,
              total > 0 ? out / total : 0);
  if (a.lse && c == 0)
    a.lse[column.query * a.shape.heads + column.head] =
        total > 0 ? top * 0.693147180559945f + logf(total) : -INFINITY;
}

// joined: the splits are a cluster, whose blocks share the merging of their parts; else these go to
// `parts`, for attention_merge().
template <bool q8, int D, int eights>
__global__ void __launch_bounds__(kThreads, blocks_at_once(D, 8 * eights))
    coded_kernel(const __grid_constant__ AttentionForward a, float* parts, bool fast_q,
                 bool joined) {
  using Row = CodedRow<q8, D>;
  constexpr int kColumns = 8 * eights;
  extern __shared__ __align__(16) char shared[];
  __shared__ float tops[kWarps][kColumns], totals[kWarps][kColumns];
  const AttentionShape& s = a.shape;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4,
            splits = gridDim.x, split = blockIdx.x, first = blockIdx.z * kColumns;
  let_next_start();
  after_previous();

  // The first keys are on their way while the queries are read.
  KeyRange all{kNoKey, -1};
  const int last_pair = min(first + kColumns, s.queries * (s.heads / s.kv_heads)) - 1;
  for (int query = column_of(s, first).query; query <= column_of(s, last_pair).query; ++query) {
    const KeyRange r = row_range(s, query);
    all.lo = min(all.lo, r.lo), all.hi = max(all.hi, r.hi);
  }
  const int count = all.lo <= all.hi ? all.hi - all.lo + 1 : 0,
            part = (count + splits - 1) / splits;
  const int begin = count == 0 ? 0 : all.lo + split * part,
            end = count == 0 ? 0 : min(all.hi + 1, begin + part);

  const int stride = s.kv_heads * Row::bytes, head_at = static_cast<int>(blockIdx.y) * Row::bytes,
            first_key = begin + warp * kTile;
  auto row_at = [&](int key) { return static_cast<std::int64_t>(key) * stride + head_at; };
  // How far into 16 bytes row r of a tile begins: the same in all tiles of a warp.
  const int first_inside = q8 ? static_cast<int>(row_at(first_key) & 15) : 0;
  auto inside = [&](int r) { return q8 ? (first_inside + r * stride) & 15 : 0; };
  const int lane_row = lane / Row::pieces, lane_at = lane % Row::pieces * 16;
  // Nothing is read past the last key.
  const int last_bytes = static_cast<int>(min(
      std::int64_t{16},
      max(std::int64_t{0}, std::int64_t{s.keys} * stride - lane_at - (row_at(s.keys - 1) & ~15))));
  char* const tiles = shared + warp * kStages * kTileBytes<q8, D>;
  auto fetch = [&](int key0, int stage) {
    if (key0 < end && lane_row < Row::abreast) {
      const std::uint32_t to = shared_address(tiles + stage * kTileBytes<q8, D>);
      const std::int64_t from = row_at(key0) - first_inside + lane_at;
      const auto *k = static_cast<const char*>(a.k) + from,
                 *v = static_cast<const char*>(a.v) + from;
#pragma unroll
      for (int row = 0; row < kTile; row += Row::abreast) {
        const int r = row + lane_row, at = (r * stride + first_inside) & ~15;
        if (kTile % Row::abreast && r >= kTile) break;
        const int bytes = r >= end - key0 ? 0 : q8 && r == s.keys - 1 - key0 ? last_bytes : 16;
        const std::uint32_t put = to + static_cast<std::uint32_t>(r * Row::pitch + lane_at);
        copy_async(put, k + at, bytes);
        copy_async(put + kTile * Row::pitch, v + at, bytes);
      }
    }
    commit_copies();
  };
#pragma unroll 1
  for (int i = 0; i < kStages - 1; ++i) fetch(first_key + i * kWarps * kTile, i);

  std::uint32_t q[eights][D / 16][2];
  float factor[eights][2], top[eights][2], total[eights][2] = {};
  KeyRange seen[eights][2];
#pragma unroll
  for (int n = 0; n < eights; ++n) {
    const float power = load_query<D>(a, column_of(s, first + 8 * n + g), t, fast_q, q[n]);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      factor[n][c] = __shfl_sync(0xffffffffu, power, 8 * t + 4 * c) * (s.scale * 1.44269504088896f);
      top[n][c] = -INFINITY;
      seen[n][c] = row_range(s, column_of(s, first + 8 * n + 2 * t + c).query);
    }
  }

  float out[eights][D / 16][4] = {};
  int stage = 0;
  for (int key0 = first_key; key0 < end; key0 += kWarps * kTile) {
    fetch(key0 + (kStages - 1) * kWarps * kTile, stage == 0 ? kStages - 1 : stage - 1);
    wait_copies<kStages - 1>();
    __syncwarp();
    const char* tile = tiles + stage * kTileBytes<q8, D>;
    float score[eights][4] = {};
    tile_scores<q8, D, eights>(tile + inside(g), g, t, q, score);
    std::uint32_t weights[eights][2];
#pragma unroll
    for (int n = 0; n < eights; ++n) {
      float p[2][2], fade[2];  // p[c][u]: column 2t + c, key g + 8u
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float best = top[n][c];
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          const int key = key0 + g + 8 * u;
          p[c][u] = key < end && key >= seen[n][c].lo && key <= seen[n][c].hi
                        ? score[n][2 * u + c] * factor[n][c]
                        : -INFINITY;
          best = fmaxf(best, p[c][u]);
        }
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
          best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, step));
        const float base = best == -INFINITY ? 0.0f : best;
        fade[c] = exp2f(top[n][c] - base);
        top[n][c] = best;
#pragma unroll
        for (int u = 0; u < 2; ++u) p[c][u] = exp2f(p[c][u] - base + kLift);
        total[n][c] = total[n][c] * fade[c] + (p[c][0] + p[c][1]);
      }
#pragma unroll
      for (int m = 0; m < D / 16; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) out[n][m][e] *= fade[e % 2];
#pragma unroll
      for (int u = 0; u < 2; ++u) weights[n][u] = transposed(pack_f16(p[0][u], p[1][u]));
    }
    const char* values = tile + kTile * Row::pitch;
    add_values<q8, D, eights>(values + inside(2 * t), values + inside(2 * t + 1), g, t, weights,
                              out);
    __syncwarp();
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
  wait_copies<0>();
  __syncthreads();

  // The warps' parts lie over the tiles: (warp, column, D). Number 2m + e of eighth g of a head is
  // at (m, g, e), and rows are four apart, so that a warp's stores meet in no bank.
  constexpr int kRow = D + 4;
  auto* outs = reinterpret_cast<float*>(shared);
  static_assert(Row::pitch == D + 16 && kWarps * kColumns * kRow * 4 <= shared_bytes(D));
  const float lower = exp2f(-kLift);
#pragma unroll
  for (int n = 0; n < eights; ++n)
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int column = 8 * n + 2 * t + c;
      float sum = total[n][c];
#pragma unroll
      for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      if (g == 0) tops[warp][column] = top[n][c], totals[warp][column] = sum * lower;
      auto* to = reinterpret_cast<float2*>(outs + (warp * kColumns + column) * kRow) + g;
#pragma unroll
      for (int m = 0; m < D / 16; ++m)
        to[8 * m] = make_float2(out[n][m][c] * lower, out[n][m][2 + c] * lower);
    }
  __syncthreads();
  __shared__ float whole_top[kColumns], whole_total[kColumns];
  for (int i = threadIdx.x; i < kColumns * D; i += kThreads) {
    const int row = i / D, c = number_at<D>(i % D), at = row * kRow + i % D;
    const Column column = column_of(s, first + row);
    if (!column.valid) break;
    float best = -INFINITY, sum = 0, value = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) best = fmaxf(best, tops[w][row]);
    const float base = best == -INFINITY ? 0.0f : best;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = exp2f(tops[w][row] - base);
      sum += weight * totals[w][row], value += weight * outs[w * kColumns * kRow + at];
    }
    if (splits == 1) {
      store_result(a, column, c, best, sum, value);
    } else if (joined) {
      outs[at] = value;
      if (c == 0) whole_top[row] = best, whole_total[row] = sum;
    } else {
      float* to = parts + ((static_cast<std::int64_t>(split) * s.queries + column.query) * s.heads +
                           column.head) *
                              (D + 2);
      to[c] = value;
      if (c == 0) to[D] = best, to[D + 1] = sum;
    }
  }
#if __CUDA_ARCH__ >= 900
  if (!joined) return;
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  cluster.sync();
  for (int i = split * kThreads + threadIdx.x; i < kColumns * D; i += splits * kThreads) {
    const Column column = column_of(s, first + i / D);
    if (!column.valid) break;
    float best = -INFINITY, sum = 0, value = 0;
    for (int z = 0; z < splits; ++z)
      best = fmaxf(best, *cluster.map_shared_rank(&whole_top[i / D], z));
    const float base = best == -INFINITY ? 0.0f : best;
    for (int z = 0; z < splits; ++z) {
      const float weight = exp2f(*cluster.map_shared_rank(&whole_top[i / D], z) - base);
      sum += weight * *cluster.map_shared_rank(&whole_total[i / D], z);
      value += weight * *cluster.map_shared_rank(&outs[i / D * kRow + i % D], z);
    }
    store_result(a, column, number_at<D>(i % D), best, sum, value);
  }
  cluster.sync();  // until then the others' memory stays
#endif
}

int pairs_of(const AttentionShape& s) { return s.queries * (s.heads / s.kv_heads); }
int columns_of(const AttentionShape& s) { return s.d == 256 || pairs_of(s) <= 8 ? 8 : 16; }

template <bool q8, int D, int eights>
void launch(const AttentionForward& a, float* parts, int splits, cudaStream_t stream) {
  const auto kernel = coded_kernel<q8, D, eights>;
  allow_shared(kernel, shared_bytes(D));
  const bool joined = (splits == 2 || splits == 4 || splits == kMostCluster) &&
                      device_limits().capability >= 90;
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(a.shape.kv_heads),
                  static_cast<unsigned>(ceil_div(pairs_of(a.shape), 8 * eights)));
  launch_overlapped(
      "attention_coded", kernel,
      Launch{grid, kThreads, shared_bytes(D), joined ? static_cast<unsigned>(splits) : 1}, stream,
      a, parts, reinterpret_cast<std::uintptr_t>(a.q) % 8 == 0 && a.q_stride % 4 == 0, joined);
  if (splits > 1 && !joined) attention_merge(a, parts, splits, stream);
}

template <bool q8>
void launch_size(const AttentionForward& a, float* parts, int splits, cudaStream_t stream) {
  if (a.shape.d == 256) return launch<q8, 256, 1>(a, parts, splits, stream);
  if (columns_of(a.shape) == 8)
    return a.shape.d == 64 ? launch<q8, 64, 1>(a, parts, splits, stream)
                           : launch<q8, 128, 1>(a, parts, splits, stream);
  a.shape.d == 64 ? launch<q8, 64, 2>(a, parts, splits, stream)
                  : launch<q8, 128, 2>(a, parts, splits, stream);
}

}  // namespace

int attention_coded_splits(const AttentionForward& a) {
  const AttentionShape& s = a.shape;
  if (s.queries > kFewQueries || a.type != DType::bf16 || device_limits().capability < 80) return 0;
  if (s.d != 64 && s.d != 128 && s.d != 256) return 0;
  if (device_limits().shared_bytes < static_cast<std::size_t>(shared_bytes(s.d))) return 0;
  const std::int64_t blocks = s.kv_heads * ceil_div(pairs_of(s), columns_of(s)),
                     wanted = blocks_at_once(s.d, columns_of(s)) * device_limits().multiprocessors /
                              blocks;
  const std::int64_t most = std::min<std::int64_t>(ceil_div(s.keys, kTile * kWarps), kMostSplits);
  return static_cast<int>(std::max<std::int64_t>(1, std::min(wanted, most)));
}

void attention_coded(const AttentionForward& a, void* workspace, cudaStream_t stream) {
  const int splits = attention_coded_splits(a);
  auto* parts = static_cast<float*>(workspace);
  a.codes == CacheCodes::q8_0 ? launch_size<true>(a, parts, splits, stream)
                              : launch_size<false>(a, parts, splits, stream);
}

}  // namespace supersonic::cuda
