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
constexpr std::int64_t kMostDense = 256;

constexpr bool nf4(Codec c) { return c == Codec::nf4 || c == Codec::nf4_plain; }
template <Codec C>  // chunks of a warp on their way
constexpr int kStages = std::clamp(65536 / (kWarps * kTileRows * Fragment<C>::kStride), 2, 3);
template <Codec C>
constexpr std::size_t kRingBytes =
    std::size_t{kWarps} * kStages<C>* kTileRows* Fragment<C>::kStride;
constexpr int kPairWords = 256 * 32, kMapWords = 256;  // of Nf4Tables, in shared memory
template <Codec C>
constexpr std::size_t kTableBytes = nf4(C) ? (kPairWords + kMapWords) * 4 : 0;

template <bool single>
constexpr int kPartial = kTileRows*(single ? 1 : kRows);  // sums of a tile
template <bool single>
constexpr int kSquares = kWarps*(single ? 1 : kRows);

template <Codec C, bool single>
std::size_t shared_bytes(const RowProblem& p, bool staged) {
  const std::size_t sums =
      static_cast<std::size_t>(p.k / Fragment<C>::kGroup) * (single ? 1 : kRows);
  const std::size_t x = staged ? static_cast<std::size_t>(p.m) * (2 * p.k + Fragment<C>::kPad) : 0;
  return kRingBytes<C> + kTableBytes<C> +
         ((2 * kWarps + 1) * kPartial<single> + kSquares<single> + sums) * 4 + x;
}

struct Tile {
  int matrix, row;
};
// The block's item-th tile. A gate's tile and that of its operand follow each other.
__device__ inline Tile tile_of(const RowProblem& p, int item) {
  const auto block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  if (p.gate != RowGate::none) return {item % 2, (block + item / 2 * blocks) * kTileRows};
  int index = block + item * blocks, matrix = 0;
  for (; matrix + 1 < p.count; ++matrix) {
    const int tiles = (p.matrix[matrix].n + kTileRows - 1) / kTileRows;
    if (index < tiles) break;
    index -= tiles;
  }
  return {matrix, index * kTileRows};
}

// A warp's way over its chunks: all tiles of the block, in each the chunks warp, warp + kWarps, ...
template <Codec C>
struct Stream {
  using F = Fragment<C>;
  static constexpr int pieces = kTileRows * F::kPieces, loads = (pieces + 31) / 32;
  const RowProblem& p;
  const int items, mine, warp, lane, row_bytes;
  std::uint32_t ring;
  int item = 0, chunk = 0;  // the next to be loaded

  __device__ void load(int slot) {
    if (item < items && mine > 0) {
      const Tile tile = tile_of(p, item);
      const RowMatrix& w = p.matrix[tile.matrix];
      const std::uint8_t* from = w.codes + static_cast<std::int64_t>(tile.row) * row_bytes +
                                 (warp + chunk * kWarps) * F::kBytes;
      const int live = min(kTileRows, w.n - tile.row) * F::kPieces;
#pragma unroll
      for (int j = 0; j < loads; ++j) {
        const int i = lane + 32 * j, row = i / F::kPieces, piece = i % F::kPieces;
        if (pieces % 32 && i >= pieces) continue;
        auto address = reinterpret_cast<std::uintptr_t>(from + row * row_bytes);
        if (F::kShifted) address &= ~std::uintptr_t{15};
        copy_async(ring + (slot * kTileRows + row) * F::kStride + piece * 16,
                   reinterpret_cast<const void*>(address + piece * 16), i < live ? 16 : 0);
      }
      if constexpr (nf4(C)) load_scales(w, tile.row, chunk, slot);
      if (++chunk == mine) chunk = 0, ++item;
    }
    commit_copies();
  }

  __device__ void load_scales(const RowMatrix& w, int first_row, int chunk_of_warp, int slot) {
    const int row = lane % kTileRows;
    const bool live = first_row + row < w.n;
    const std::int64_t at = static_cast<std::int64_t>(live ? first_row + row : first_row) * p.k +
                            (warp + chunk_of_warp * kWarps) * kChunk;
    const std::int64_t block = at / formats::Nf4::weights;
    const std::uint32_t to = ring + (slot * kTileRows + row) * F::kStride + F::kBytes;
    if constexpr (C == Codec::nf4) {
      if (lane < kTileRows)
        copy_word_async(to, w.nf4.scale_codes + block, live);
      else
        copy_word_async(to + 4, w.nf4.scales + block / formats::Nf4::scales_per_block, live);
    } else if (lane < kTileRows) {
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
// (kWarps, rows) are what each warp has of it.
template <Codec C, bool single, bool staged>
__device__ void stage(const RowProblem& p, std::uint8_t* x, float* sums, float* squares) {
  constexpr int group = Fragment<C>::kGroup, vectors = group / 8, rows = single ? 1 : kRows;
  const int groups = p.k / group, all = p.m * groups;
  float square[rows] = {};
  for (int i = static_cast<int>(threadIdx.x); i < all; i += kThreads) {
    const int r = single ? 0 : i / groups, at = single ? i : i % groups;
    const auto* from = static_cast<const __nv_bfloat16*>(p.x) + r * p.ldx + at * group;
    auto* to = reinterpret_cast<uint4*>(x + r * (2 * p.k + Fragment<C>::kPad) + at * group * 2);
    uint4 v[vectors];
    float sum = 0;
#pragma unroll
    for (int e = 0; e < vectors; ++e) v[e] = eight_of(from + 8 * e, p.fast_x);
#pragma unroll
    for (int e = 0; e < vectors; ++e) {
      float f[8];
      unpack8(v[e], f);
      if (staged && p.norm) {
        float w[8], mine = 0;
        dense8(p.norm, p.norm_type, p.fast_norm, at * group + e * 8, 8, w);
#pragma unroll
        for (int k = 0; k < 8; ++k) mine = fmaf(f[k], f[k], mine), f[k] *= w[k];
#pragma unroll
        for (int row = 0; row < rows; ++row) square[row] += row == r ? mine : 0;
        v[e] = make_uint4(pack_bf16(f[0], f[1]), pack_bf16(f[2], f[3]), pack_bf16(f[4], f[5]),
                          pack_bf16(f[6], f[7]));
        unpack8(v[e], f);
      }
      sum += sum_of_eight(f);
      if (staged) to[e] = v[e];
    }
    sums[single ? at : at * kRows + r] = sum;
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
__device__ float map_of(float x, float up) {
  return M::map(M{}, Num<float>::of(x), Num<float>::of(up)).v;
}
__device__ inline float gated(RowGate gate, float x, float up) {
  return gate == RowGate::silu ? map_of<Swiglu>(x, up) : map_of<Geglu>(x, up);
}

// One warp adds what the block's warps have of a tile. let_through: sums of a gate's tile, kept for
// the next one.
template <bool single>
__device__ void finish(const RowProblem& p, const Tile& tile, const float* partial,
                       float* let_through, const float* squares, int lane) {
  constexpr int rows = single ? 1 : kRows;
  const RowMatrix& w = p.matrix[tile.matrix];
  const bool gate = p.gate != RowGate::none;
  for (int o = lane; o < kTileRows * p.m; o += 32) {
    const int n = o % kTileRows, row = o / kTileRows;
    if (tile.row + n >= w.n) continue;
    const RowMatrix& y = p.matrix[gate ? 0 : tile.matrix];
    const std::int64_t at = row * y.ldy + tile.row + n;
    const float first = p.addend ? load_float(p.addend, p.y_type, at) : 0;
    float sum = 0;
#pragma unroll
    for (int part = 0; part < kWarps; ++part)
      sum += partial[part * kPartial<single> + (single ? n : n * kRows + row)];
    if (p.norm) {
      float total = 0;
#pragma unroll
      for (int part = 0; part < kWarps; ++part) total += squares[part * rows + row];
      sum *= 1.0f / sqrtf(total / static_cast<float>(p.k) + p.eps);
    }
    if (gate && tile.matrix == 0) {
      let_through[o] = sum;
      continue;
    }
    if (gate) sum = gated(p.gate, let_through[o], sum);
    for (int i = 0; i < p.dense_count; ++i) sum += dense_dot(p.dense[i], row, tile.row + n);
    store_float(y.y, p.y_type, at, first + sum);
  }
}

template <Codec C, bool single, bool staged>
__global__ void __launch_bounds__(kThreads, kBlocks)
    row_products_kernel(const __grid_constant__ RowProblem p, int tiles) {
  using F = Fragment<C>;
  extern __shared__ uint4 shared[];
  auto* ring = reinterpret_cast<std::uint8_t*>(shared);
  auto* partial = reinterpret_cast<float*>(ring + kRingBytes<C>);
  auto* pairs = reinterpret_cast<std::uint32_t*>(partial);
  if constexpr (nf4(C)) partial += kPairWords + kMapWords;
  float* let_through = partial + 2 * kWarps * kPartial<single>;
  float* squares = let_through + kPartial<single>;
  float* sums = squares + kSquares<single>;
  auto* x = reinterpret_cast<std::uint8_t*>(sums + p.k / F::kGroup * (single ? 1 : kRows));
  const int lane = threadIdx.x % 32, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4,
            t = lane % 4;
  // tiles: pairs of them where there is a gate
  const int items = (tiles - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
                    static_cast<int>(gridDim.x) * (p.gate == RowGate::none ? 1 : 2);
  const int mine = max(0, (p.k / kChunk - warp + kWarps - 1) / kWarps);
  const int row_bytes = p.k / kChunk * F::kBytes;
  ring += warp * kStages<C> * kTileRows * F::kStride;
  Stream<C> stream{p, items, mine, warp, lane, row_bytes, shared_address(ring)};
  let_next_start();
#pragma unroll
  for (int s = 0; s < kStages<C>; ++s) stream.load(s);
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
    const Tile tile = tile_of(p, item);
    RowSums<single> sum;
    for (int i = 0; i < mine; ++i) {
      const int chunk = warp + i * kWarps;
      RowPair w{};
      if constexpr (nf4(C))
        w.nf4 = {pairs + lane, reinterpret_cast<const float*>(pairs + kPairWords),
                 C == Codec::nf4 ? *p.matrix[tile.matrix].nf4.offset : 0.0f};
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        w.row[r] = ring + (slot * kTileRows + g + 8 * r) * F::kStride;
        if (F::kShifted)
          w.row[r] += (static_cast<unsigned>(tile.row + g + 8 * r) * row_bytes +
                       static_cast<unsigned>(chunk) * F::kBytes) &
                      15;
      }
      wait_copies<kStages<C> - 1>();
      __syncwarp();
      F::template multiply<single>(w, activations, chunk * kChunk, t, sum);
      __syncwarp();
      stream.load(slot);
      slot = slot + 1 == kStages<C> ? 0 : slot + 1;
    }
    float* mine_of_tile = partial + (item % 2 * kWarps + warp) * kPartial<single>;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if constexpr (single) {
        if (t == 0) mine_of_tile[g + 8 * r] = sum.v[r][0];
      } else {
        *reinterpret_cast<float2*>(mine_of_tile + (g + 8 * r) * kRows + 2 * t) =
            make_float2(sum.v[r][0], sum.v[r][1]);
      }
    }
    __syncthreads();
    if (warp == item % kWarps)
      finish<single>(p, tile, partial + item % 2 * kWarps * kPartial<single>, let_through, squares,
                     lane);
  }
}

template <Codec C, bool single, bool staged>
void launch_staged(const RowProblem& p, std::size_t bytes, cudaStream_t stream) {
  const auto kernel = row_products_kernel<C, single, staged>;
  static const bool allowed = (allow_shared(kernel, device_limits().shared_bytes), true);
  static_cast<void>(allowed);
  int tiles = 0;
  for (int i = 0; i < (p.gate == RowGate::none ? p.count : 1); ++i)
    tiles += static_cast<int>(ceil_div(p.matrix[i].n, std::int64_t{kTileRows}));
  constexpr std::size_t reserved = 1024;  // of each block, by the driver
  const auto fit = static_cast<int>((device_limits().shared_bytes + reserved) / (bytes + reserved));
  const int blocks = std::min(tiles, std::min(fit, kBlocks) * device_limits().multiprocessors);
  launch_overlapped("row_products", kernel, Launch{static_cast<unsigned>(blocks), kThreads, bytes},
                    stream, p, tiles);
}

template <Codec C, bool single>
void launch(const RowProblem& p, cudaStream_t stream) {
  const std::size_t bytes = shared_bytes<C, single>(p, true);
  if (bytes <= device_limits().shared_bytes)
    return launch_staged<C, single, true>(p, bytes, stream);
  launch_staged<C, single, false>(p, shared_bytes<C, single>(p, false), stream);
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

void row_products(const RowProblem& p, Codec codec, cudaStream_t stream) {
  with_fragments(codec, [&](auto c) {
    p.m == 1 ? launch<c.value, true>(p, stream) : launch<c.value, false>(p, stream);
  });
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
