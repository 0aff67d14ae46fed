// One to eight rows of bf16 meet packed weights in the tensor cores: y_i (M, N_i) = x (M, K) *
// W_i (N_i, K)^T. A block takes tiles of 16 rows of weights; its warps share a tile's K in chunks
// of 256 and bring their bytes into shared memory by asynchronous copies, each in a ring of its
// own that runs ahead over the block's tiles, so that the memory never waits for arithmetic. The
// weights are the left operand of mma.sync (row_fragments.cuh), x the right one, of eight columns,
// which one row fills with copies of itself. The warps' sums meet in shared memory; a different
// warp adds each tile's while the others go on. The first weights are on their way before the
// kernel ahead has ended. Where x is to be normalised each block does it for itself. Bytes moved:
// the weights', once; limit: the memory's bandwidth, with two instructions a weight or less behind
// it.
#include "backend/cuda/kernels/row_products.h"

#include <algorithm>

#include "backend/cuda/kernels/chain_maps.cuh"
#include "backend/cuda/kernels/overlap.cuh"
#include "backend/cuda/kernels/row_fragments.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kRows = 8;
constexpr int kBlocks = 2;  // on a multiprocessor
template <Codec C>          // chunks of a warp on their way
constexpr int kStages = std::clamp(65536 / (kWarps * kTileRows * Fragment<C>::kStride), 2, 3);
constexpr std::int64_t kMostDense = 256;

constexpr bool nf4(Codec c) { return c == Codec::nf4 || c == Codec::nf4_plain; }
template <Codec C>
constexpr std::size_t kRingBytes =
    std::size_t{kWarps} * kStages<C>* kTileRows* Fragment<C>::kStride;
constexpr int kPairWords = 256 * 32, kMapWords = 256;  // of Nf4Tables, in shared memory
template <Codec C>
constexpr std::size_t kTableBytes = nf4(C) ? (kPairWords + kMapWords) * 4 : 0;

template <bool single>
constexpr int kPartial = kTileRows*(single ? 1 : kRows);  // sums of a tile
// Tiles whose sums wait for the warp that adds them up.
template <bool single>
constexpr int kOpenTiles = single ? kWarps : 2;
template <bool single>
constexpr int kSquares = kWarps*(single ? 1 : kRows);

template <Codec C, bool single>
std::size_t shared_bytes(const RowProblem& p, bool staged) {
  const std::size_t sums =
      static_cast<std::size_t>(p.k / Fragment<C>::kGroup) * (single ? 1 : kRows);
  const std::size_t x = staged ? static_cast<std::size_t>(p.m) * (2 * p.k + Fragment<C>::kPad) : 0;
  return kRingBytes<C> + kTableBytes<C> +
         (kOpenTiles<single> * kWarps * kPartial<single> + kSquares<single> + sums) * 4 + x;
}

// The norm's weights are no result of the kernel before, and seldom in L2. Each block asks for
// some.
__device__ inline void prefetch_norm(const RowProblem& p) {
  if (!p.norm) return;
  constexpr int line = 128;
  const int bytes = p.k * (p.norm_type == DType::f32 ? 4 : 2);
  for (int at = static_cast<int>(blockIdx.x) * line; at < bytes;
       at += static_cast<int>(gridDim.x) * line)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const std::uint8_t*>(p.norm) + at));
}

// The matrices of one format, and which of the launch's blocks share their tiles.
struct Part {
  int first, last;  // matrices
  int block, blocks;
};
// Rows of a matrix; of a gate and its operand eight rows each, in the halves of a tile.
struct Tile {
  int matrix, row;
};
// The block's item-th tile.
__device__ inline Tile tile_of(const RowProblem& p, const Part& part, int item) {
  int index = part.block + item * part.blocks, matrix = part.first;
  if (p.gate != RowGate::none) return {matrix, index * kTileRows / 2};
  for (; matrix + 1 < part.last; ++matrix) {
    const int tiles = (p.matrix[matrix].n + kTileRows - 1) / kTileRows;
    if (index < tiles) break;
    index -= tiles;
  }
  return {matrix, index * kTileRows};
}
// Where each half of a tile lies, and how many of its eight rows are there.
struct Halves {
  const RowMatrix* matrix[2];
  int row[2], live[2];
  __device__ Halves(const RowProblem& p, const Tile& t) {
    const bool gate = p.gate != RowGate::none;
    matrix[0] = &p.matrix[t.matrix], matrix[1] = matrix[0] + (gate ? 1 : 0);
    row[0] = t.row, row[1] = t.row + (gate ? 0 : kTileRows / 2);
#pragma unroll
    for (int h = 0; h < 2; ++h) live[h] = min(kTileRows / 2, matrix[h]->n - row[h]);
  }
};

// A warp's way over its chunks: all tiles of the block, in each the chunks warp, warp + kWarps, ...
template <Codec C>
struct Stream {
  using F = Fragment<C>;
  static constexpr int pieces = kTileRows * F::kPieces, loads = (pieces + 31) / 32;
  const RowProblem& p;
  const Part part;
  const int items, mine, warp, lane, row_bytes;
  std::uint32_t ring;
  int item = 0, chunk = 0;  // the next to be loaded
  // Of the item: where its halves' chunks of this warp begin; rows that are there, four bits each.
  const std::uint8_t* from[2] = {};
  int live = 0;

  __device__ void enter() {
    const Halves half(p, tile_of(p, part, item));
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      from[h] = half.matrix[h]->codes + static_cast<std::int64_t>(half.row[h]) * row_bytes +
                warp * F::kBytes;
    }
    live = max(half.live[0], 0) | max(half.live[1], 0) << 4;
  }
  // Of some formats the places of copies would take registers that there are not: made each time.
  __device__ int lane_of_copies() const {
    int here = lane;
    if constexpr (nf4(C) || C == Codec::q8_0) asm volatile("mov.u32 %0, %%laneid;" : "=r"(here));
    return here;
  }
  __device__ void load(int slot) {
    if (item < items && mine > 0) {
      if (chunk == 0) enter();
      const int from_lane = lane_of_copies();
#pragma unroll
      for (int j = 0; j < loads; ++j) {
        const int i = from_lane + 32 * j, row = i / F::kPieces, piece = i % F::kPieces;
        const bool second = row >= kTileRows / 2;
        if (pieces % 32 && i >= pieces) continue;
        auto address =
            reinterpret_cast<std::uintptr_t>((second ? from[1] : from[0]) + row % 8 * row_bytes);
        if (F::kShifted) address &= ~std::uintptr_t{15};
        copy_async(ring + (slot * kTileRows + row) * F::kStride + piece * 16,
                   reinterpret_cast<const void*>(address + piece * 16),
                   row % 8 < (live >> (second ? 4 : 0) & 15) ? 16 : 0);
      }
      if constexpr (nf4(C)) load_scales(Halves(p, tile_of(p, part, item)), chunk, slot);
#pragma unroll
      for (int h = 0; h < 2; ++h) from[h] += kWarps * F::kBytes;
      if (++chunk == mine) chunk = 0, ++item;
    }
    commit_copies();
  }

  __device__ void load_scales(const Halves& half, int chunk_of_warp, int slot) {
    const int from_lane = lane_of_copies(), row = from_lane % kTileRows;
    const bool second = row >= kTileRows / 2,
               live = row % 8 < (second ? half.live[1] : half.live[0]);
    const RowMatrix& w = second ? *half.matrix[1] : *half.matrix[0];
    const int first = second ? half.row[1] : half.row[0];
    const std::int64_t at =
        (live ? static_cast<std::int64_t>(first + row % 8) : std::int64_t{0}) * p.k +
        (warp + chunk_of_warp * kWarps) * kChunk;
    const std::int64_t block = at / formats::Nf4::weights;
    const std::uint32_t to = ring + (slot * kTileRows + row) * F::kStride + F::kBytes;
    if constexpr (C == Codec::nf4) {
      if (from_lane < kTileRows)
        copy_word_async(to, w.nf4.scale_codes + block, live);
      else
        copy_word_async(to + 4, w.nf4.scales + block / formats::Nf4::scales_per_block, live);
    } else if (from_lane < kTileRows) {
      copy_async(to, w.nf4.scales + block, live ? 16 : 0);
    }
  }
};

__device__ inline void fill_tables(std::uint32_t* pairs, float* map) {
  for (int i = static_cast<int>(threadIdx.x); i < kPairWords; i += kThreads)
    pairs[i] = pack_bf16(nf4_value(i / 32 >> 4), nf4_value(i / 32 & 15));
  for (int i = static_cast<int>(threadIdx.x); i < kMapWords; i += kThreads)
    map[i] = kNf4Map.values[i];
}

__device__ inline uint4 eight_of(const __nv_bfloat16* x, bool fast) {
  if (fast) return *reinterpret_cast<const uint4*>(x);
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    pairs[i] = __bfloat16_as_ushort(x[2 * i]) |
               static_cast<std::uint32_t>(__bfloat16_as_ushort(x[2 * i + 1])) << 16;
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

__device__ inline float sum_of_eight(const float (&f)[8]) {
  return ((f[0] + f[1]) + (f[2] + f[3])) + ((f[4] + f[5]) + (f[6] + f[7]));
}

// Sums of groups of x and, where it is staged, x itself go to shared memory. x that is to be
// normalised gets the norm's weights here and its root mean square when the sums are done: squares
// (kWarps, rows) are what each warp has of it. A warp's lanes have neighbouring eights of one row.
template <Codec C, bool single, bool staged>
__device__ void stage(const RowProblem& p, std::uint8_t* x, float* sums, float* squares) {
  constexpr int lanes = Fragment<C>::kGroup / 8, rows = single ? 1 : kRows,
                ahead = single && !nf4(C) ? 4 : 1;
  const int eights = p.k / 8, all = p.m * eights;
  float square[rows] = {};
  for (int first = static_cast<int>(threadIdx.x); first < all; first += ahead * kThreads) {
    uint4 v[ahead];
    float w[ahead][8];
    auto row_of = [&](int i) { return single ? 0 : i / eights; };
    auto column_of = [&](int i) { return (single ? i : i % eights) * 8; };
#pragma unroll
    for (int e = 0; e < ahead; ++e) {
      const int i = first + e * kThreads;
      if (i >= all) continue;
      const auto* from = static_cast<const __nv_bfloat16*>(p.x) + row_of(i) * p.ldx + column_of(i);
      v[e] = eight_of(from, p.fast_x);
      if (staged && p.norm) dense8(p.norm, p.norm_type, p.fast_norm, column_of(i), 8, w[e]);
    }
#pragma unroll
    for (int e = 0; e < ahead; ++e) {
      const int i = first + e * kThreads, r = row_of(i);
      if (i >= all) continue;
      float f[8];
      unpack8(v[e], f);
      if (staged && p.norm) {
        float mine = 0;
#pragma unroll
        for (int k = 0; k < 8; ++k) mine = fmaf(f[k], f[k], mine), f[k] *= w[e][k];
#pragma unroll
        for (int row = 0; row < rows; ++row) square[row] += row == r ? mine : 0;
        v[e] = make_uint4(pack_bf16(f[0], f[1]), pack_bf16(f[2], f[3]), pack_bf16(f[4], f[5]),
                          pack_bf16(f[6], f[7]));
        unpack8(v[e], f);
      }
      float sum = sum_of_eight(f);
#pragma unroll
      for (int step = 1; step < lanes; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      const int at = column_of(i) / Fragment<C>::kGroup;
      if (i % lanes == 0) sums[single ? at : at * kRows + r] = sum;
      if (staged)
        *reinterpret_cast<uint4*>(x + r * (2 * p.k + Fragment<C>::kPad) + column_of(i) * 2) = v[e];
    }
  }
  if constexpr (staged) {
    if (!p.norm) return;
#pragma unroll
    for (int row = 0; row < rows; ++row) {
      const float total = warp_sum(square[row]);
      if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32 * rows + row] = total;
    }
  }
}

__device__ inline float dense_dot(const VectorTerm& t, int row, int n) {
  float sum = 0;
  for (std::int64_t k = 0; k < t.k; k += 8) {
    const int count = t.k - k < 8 ? static_cast<int>(t.k - k) : 8;
    float x[8], w[8];
    dense8(t.x, t.x_type, t.fast_x, row * t.ldx + k, count, x);
    dense8(t.w.data[0], t.w_type, t.fast_w, n * t.ldw + k, count, w);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum = fmaf(x[e], w[e], sum);
  }
  return sum;
}

// A map is host code unless a template of the device instantiates it.
template <class M>
__device__ float gated(float x, float up) {
  return M::map(M{}, Num<float>::of(x), Num<float>::of(up)).v;
}
__device__ inline float gated_of(RowGate gate, float x, float up) {
  return gate == RowGate::silu ? gated<Swiglu>(x, up) : gated<Geglu>(x, up);
}

// What a tile's results start from, for the lanes that will add them up.
__device__ inline float addend_of(const RowProblem& p, const Tile& tile, int n, int row) {
  const RowMatrix& y = p.matrix[tile.matrix];
  if (!p.addend || tile.row + n >= y.n) return 0;
  return load_float(p.addend, p.y_type, row * y.ldy + tile.row + n);
}

// One warp adds what the block's warps have of a tile. first: its addend, of a single row.
template <bool single>
__device__ void finish(const RowProblem& p, const Tile& tile, const float* partial, float first,
                       const float* squares, int lane) {
  constexpr int rows = single ? 1 : kRows;
  const bool gate = p.gate != RowGate::none;
  const int outputs = gate ? kTileRows / 2 : kTileRows;
  const RowMatrix& y = p.matrix[tile.matrix];
  for (int o = lane; o < outputs * p.m; o += 32) {
    const int n = o % outputs, row = single ? 0 : o / outputs;
    if (tile.row + n >= y.n) continue;
    float rstd = 1;
    if (p.norm) {
      float total = 0;
#pragma unroll
      for (int part = 0; part < kWarps; ++part) total += squares[part * rows + row];
      rstd = 1.0f / sqrtf(total / static_cast<float>(p.k) + p.eps);
    }
    auto sum_of = [&](int of) {
      float sum = 0;
#pragma unroll
      for (int part = 0; part < kWarps; ++part)
        sum += partial[part * kPartial<single> + (single ? of : of * kRows + row)];
      return sum * rstd;
    };
    float sum = sum_of(n);
    if (gate) sum = gated_of(p.gate, sum, sum_of(n + kTileRows / 2));
    for (int i = 0; i < p.dense_count; ++i) sum += dense_dot(p.dense[i], row, tile.row + n);
    store_float(y.y, p.y_type, row * y.ldy + tile.row + n,
                (single ? first : addend_of(p, tile, n, row)) + sum);
  }
}

// The block's warps meet at a tile: of a single row only the one that adds the sums up waits. It
// is another one for each of kWarps tiles, so none comes back to a place that is still read.
template <bool single>
__device__ void meet(int item, bool adds) {
  if constexpr (!single) return __syncthreads();
  unrolled<kWarps>([&](auto turn) {
    constexpr int barrier = turn.value + 1;
    if (item % kWarps != turn.value) return;
    if (adds)
      asm volatile("bar.sync %0, %1;" ::"n"(barrier), "n"(kThreads) : "memory");
    else
      asm volatile("bar.arrive %0, %1;" ::"n"(barrier), "n"(kThreads) : "memory");
  });
}

template <Codec C, bool single, bool staged>
__device__ void multiply_rows(const RowProblem& p, const Part& part, int tiles, uint4* shared) {
  using F = Fragment<C>;
  auto* ring = reinterpret_cast<std::uint8_t*>(shared);
  auto* partial = reinterpret_cast<float*>(ring + kRingBytes<C>);
  auto* pairs = reinterpret_cast<std::uint32_t*>(partial);
  if constexpr (nf4(C)) partial += kPairWords + kMapWords;
  float* squares = partial + kOpenTiles<single> * kWarps * kPartial<single>;
  float* sums = squares + kSquares<single>;
  auto* x = reinterpret_cast<std::uint8_t*>(sums + p.k / F::kGroup * (single ? 1 : kRows));
  const int lane = threadIdx.x % 32, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4,
            t = lane % 4;
  const int items = (tiles - part.block + part.blocks - 1) / part.blocks;
  const int mine = max(0, (p.k / kChunk - warp + kWarps - 1) / kWarps);
  const int row_bytes = p.k / kChunk * F::kBytes;
  ring += warp * kStages<C> * kTileRows * F::kStride;
  Stream<C> stream{p, part, items, mine, warp, lane, row_bytes, shared_address(ring)};
#pragma unroll
  for (int s = 0; s < kStages<C>; ++s) stream.load(s);
  if (threadIdx.x == 32) prefetch_norm(p);
  if constexpr (nf4(C)) fill_tables(pairs, reinterpret_cast<float*>(pairs + kPairWords));
  after_previous();
  stage<C, single, staged>(p, x, sums, squares);
  __syncthreads();
  const int row = single ? 0 : min(g, p.m - 1);
  const RowX<single> activations{staged ? x + row * (2 * p.k + F::kPad)
                                        : reinterpret_cast<const std::uint8_t*>(
                                              static_cast<const __nv_bfloat16*>(p.x) + row * p.ldx),
                                 single ? sums : sums + 2 * t};
  for (int item = 0, slot = 0; item < items; ++item) {
    const bool adds = warp == item % kWarps;
    unsigned from[2];  // of the lane's rows, where they begin between two pieces
    float first = 0;
    RowSums<single> sum;
    RowPair w{};
    {
      const Tile tile = tile_of(p, part, item);
      const Halves half(p, tile);
      if (single && adds && lane < kTileRows) first = addend_of(p, tile, lane, 0);
#pragma unroll
      for (int r = 0; r < 2; ++r) from[r] = static_cast<unsigned>(half.row[r] + g) * row_bytes;
      if constexpr (C == Codec::nf4)
        w.nf4.offset[0] = *half.matrix[0]->nf4.offset,
        w.nf4.offset[1] = *half.matrix[1]->nf4.offset;
    }
    if constexpr (nf4(C)) {
      w.nf4.pairs = pairs + lane;
      w.nf4.map = reinterpret_cast<const float*>(pairs + kPairWords);
    }
    for (int i = 0; i < mine; ++i) {
      const int chunk = warp + i * kWarps;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        w.row[r] = ring + (slot * kTileRows + g + 8 * r) * F::kStride;
        if (F::kShifted) w.row[r] += (from[r] + static_cast<unsigned>(chunk) * F::kBytes) & 15;
      }
      wait_copies<kStages<C> - 1>();
      __syncwarp();
      F::template multiply<single>(w, activations, chunk * kChunk, t, sum);
      __syncwarp();
      stream.load(slot);
      slot = slot + 1 == kStages<C> ? 0 : slot + 1;
    }
    float* of_tile = partial + item % kOpenTiles<single> * kWarps * kPartial<single>;
    float* mine_of_tile = of_tile + warp * kPartial<single>;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if constexpr (single) {
        if (t == 0) mine_of_tile[g + 8 * r] = sum.v[r][0];
      } else {
        *reinterpret_cast<float2*>(mine_of_tile + (g + 8 * r) * kRows + 2 * t) =
            make_float2(sum.v[r][0], sum.v[r][1]);
      }
    }
    meet<single>(item, adds);
    if (adds) finish<single>(p, tile_of(p, part, item), of_tile, first, squares, lane);
  }
}

// Tiles and blocks of the matrices of each format.
struct Shares {
  int tiles[2], blocks[2];
};

template <Codec C, Codec D, bool single, bool staged>
__global__ void __launch_bounds__(kThreads, staged ? kBlocks : 1)
    row_products_kernel(const __grid_constant__ RowProblem p, Shares s) {
  extern __shared__ uint4 shared[];
  const auto block = static_cast<int>(blockIdx.x);
  let_next_start();
  if (C == D || block < s.blocks[0])
    multiply_rows<C, single, staged>(p, Part{0, p.second, block, s.blocks[0]}, s.tiles[0], shared);
  else
    multiply_rows<D, single, staged>(p, Part{p.second, p.count, block - s.blocks[0], s.blocks[1]},
                                     s.tiles[1], shared);
}

int tiles_of(const RowProblem& p, int first, int last) {
  if (p.gate != RowGate::none && last > first)
    return static_cast<int>(ceil_div(p.matrix[0].n, std::int64_t{kTileRows / 2}));
  int tiles = 0;
  for (int i = first; i < last; ++i)
    tiles += static_cast<int>(ceil_div(p.matrix[i].n, std::int64_t{kTileRows}));
  return tiles;
}

// Blocks in proportion to the bytes of each format, where there are not enough for a tile each.
Shares shares_of(const RowProblem& p, int first_bytes, int second_bytes, std::size_t bytes) {
  constexpr std::size_t reserved = 1024;  // of each block, by the driver
  const auto fit = static_cast<int>((device_limits().shared_bytes + reserved) / (bytes + reserved));
  const int processors = device_limits().multiprocessors;
  Shares s{{tiles_of(p, 0, p.second), tiles_of(p, p.second, p.count)}, {}};
  const int tiles = s.tiles[0] + s.tiles[1];
  const int blocks = std::min(fit, kBlocks) * processors;
  if (tiles <= blocks) return s.blocks[0] = s.tiles[0], s.blocks[1] = s.tiles[1], s;
  const double all = static_cast<double>(s.tiles[0]) * first_bytes +
                     static_cast<double>(s.tiles[1]) * second_bytes;
  if (s.tiles[1])
    s.blocks[1] = std::clamp(static_cast<int>(blocks * s.tiles[1] * (second_bytes / all) + 0.5), 1,
                             std::min(blocks - 1, s.tiles[1]));
  s.blocks[0] = std::min(blocks - s.blocks[1], s.tiles[0]);
  return s;
}

template <Codec C, Codec D, bool single, bool staged>
void launch_staged(const RowProblem& p, std::size_t bytes, cudaStream_t stream) {
  const auto kernel = row_products_kernel<C, D, single, staged>;
  static const bool allowed = (allow_shared(kernel, device_limits().shared_bytes), true);
  static_cast<void>(allowed);
  const Shares s = shares_of(p, Fragment<C>::kBytes, Fragment<D>::kBytes, bytes);
  const auto blocks = static_cast<unsigned>(s.blocks[0] + s.blocks[1]);
  launch_overlapped("row_products", kernel, Launch{blocks, kThreads, bytes}, stream, p, s);
}

template <Codec C, bool single>
void launch(const RowProblem& p, cudaStream_t stream) {
  const std::size_t bytes = shared_bytes<C, single>(p, true);
  if (bytes <= device_limits().shared_bytes)
    return launch_staged<C, C, single, true>(p, bytes, stream);
  launch_staged<C, C, single, false>(p, shared_bytes<C, single>(p, false), stream);
}

// Calls f(integral_constant<Codec>) for the formats that have fragments.
template <class F>
bool with_fragments(Codec codec, const F& f) {
  switch (codec) {
    case Codec::q4_0:
      return f(std::integral_constant<Codec, Codec::q4_0>{}), true;
    case Codec::q4_1:
      return f(std::integral_constant<Codec, Codec::q4_1>{}), true;
    case Codec::q8_0:
      return f(std::integral_constant<Codec, Codec::q8_0>{}), true;
    case Codec::q4_k:
      return f(std::integral_constant<Codec, Codec::q4_k>{}), true;
    case Codec::q5_k:
      return f(std::integral_constant<Codec, Codec::q5_k>{}), true;
    case Codec::q6_k:
      return f(std::integral_constant<Codec, Codec::q6_k>{}), true;
    case Codec::nf4:
      return f(std::integral_constant<Codec, Codec::nf4>{}), true;
    case Codec::nf4_plain:
      return f(std::integral_constant<Codec, Codec::nf4_plain>{}), true;
    default:
      return false;
  }
}

}  // namespace

RowMatrix row_matrix(const Planes& planes, Codec codec, void* y, std::int64_t ldy, std::int64_t n) {
  RowMatrix m{static_cast<const std::uint8_t*>(planes.data[0]), {}, y, ldy, static_cast<int>(n)};
  if (nf4(codec)) m.nf4 = nf4_planes(planes, codec == Codec::nf4);
  return m;
}

bool row_products_take(Codec codec, std::int64_t m, std::int64_t k, bool staged) {
  if (device_limits().capability < 80 || m > kRows || k % kChunk || k > INT32_MAX) return false;
  bool fits = true;
  RowProblem p{};
  p.m = static_cast<int>(m), p.k = static_cast<int>(k);
  return with_fragments(codec,
                        [&](auto c) {
                          const std::size_t bytes = m == 1
                                                        ? shared_bytes<c.value, true>(p, staged)
                                                        : shared_bytes<c.value, false>(p, staged);
                          fits = bytes <= device_limits().shared_bytes;
                        }) &&
         fits;
}

void row_products(RowProblem p, Codec codec, cudaStream_t stream) {
  p.second = p.count;
  with_fragments(codec, [&](auto c) {
    p.m == 1 ? launch<c.value, true>(p, stream) : launch<c.value, false>(p, stream);
  });
}

bool row_products_of_two(const RowProblem& p, Codec first, Codec second, cudaStream_t stream) {
  auto take = [&](auto c, auto d) {
    constexpr Codec C = decltype(c)::value, D = decltype(d)::value;
    const std::size_t bytes =
        std::max(shared_bytes<C, true>(p, true), shared_bytes<D, true>(p, true));
    if (bytes > device_limits().shared_bytes) return false;
    launch_staged<C, D, true, true>(p, bytes, stream);
    return true;
  };
  constexpr std::integral_constant<Codec, Codec::q4_k> q4_k;
  constexpr std::integral_constant<Codec, Codec::q5_k> q5_k;
  constexpr std::integral_constant<Codec, Codec::q6_k> q6_k;
  if (p.m != 1 || p.gate != RowGate::none || second != Codec::q6_k) return false;
  if (first == Codec::q4_k) return take(q4_k, q6_k);
  return first == Codec::q5_k && take(q5_k, q6_k);
}

// A product of the general kind, where it is of this one.
bool vector_rows(const VectorProblem& v, Codec codec, cudaStream_t stream) {
  RowProblem p{};
  const VectorTerm* packed = nullptr;
  for (int i = 0; i < v.count; ++i) {
    const VectorTerm& t = v.terms[i];
    if (t.dense) {
      if (t.k > kMostDense || p.dense_count == kMaxGemmTerms - 1) return false;
      p.dense[p.dense_count++] = t;
    } else {
      if (packed) return false;
      packed = &t;
    }
  }
  if (!packed || packed->x_type != DType::bf16 ||
      reinterpret_cast<std::uintptr_t>(packed->w.data[0]) % 16 ||
      !row_products_take(codec, v.m, packed->k, !packed->fast_x))
    return false;
  p.m = v.m, p.k = static_cast<int>(packed->k), p.count = 1;
  p.x = packed->x, p.ldx = packed->ldx, p.fast_x = packed->fast_x, p.y_type = v.y_type;
  p.matrix[0] = row_matrix(packed->w, codec, v.y, v.ldy, v.n);
  p.addend = v.accumulate ? v.y : nullptr;
  row_products(p, codec, stream);
  return true;
}

}  // namespace supersonic::cuda
