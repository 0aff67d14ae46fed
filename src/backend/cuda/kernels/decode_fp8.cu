// Weights as blocks of E4M3: a thread block decodes 256 along K by 128 weights into registers, as
// bf16, finds the largest, and writes codes with one scale, as they lie or turned. A thread has
// eight columns of four rows, twice; turned, its four codes of a column are a word in shared
// memory, whose place is chosen so that no two lanes meet in a bank. Bytes: those of the stored
// weights and one a code; limit: the copy bandwidth.
#include <algorithm>

#include "backend/cuda/kernels/fp8.cuh"
#include "backend/cuda/kernels/panel_sources.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 512;

// A block as it is stored: its rows and columns, and how threads take it, half after half.
template <bool turned>
struct Shape {
  static constexpr int rows = turned ? kFp8Group : kFp8Across,
                       cols = turned ? kFp8Across : kFp8Group, pieces = cols / 8,
                       rows_of_half = kThreads / pieces * 4;
  static_assert(2 * rows_of_half == rows);
};
constexpr int kMostBeside = 2 * kMaxGemmTerms;

struct HalfSource {
  using Table = NoTable;
  const void* data;
  DType type;
  __device__ void decode8(const NoTable&, std::int64_t at, int count, float* out) const {
    const bool fast = (reinterpret_cast<std::uintptr_t>(data) + 2 * at) % 16 == 0;
    dense8(data, type, fast, at, count, out);
  }
};

struct Blocks {
  std::int64_t first, stride;  // element where the rectangle begins; elements from row to row
  int rows, width;
  int row_blocks, col_blocks;
  std::int64_t ld;  // of codes
  std::uint8_t* codes;
  float* scales;
};

struct Beside {
  struct Matrix {
    const void* data;
    DType type;
    unsigned stride, width, total, ld;  // elements
    std::int64_t first;
    __nv_bfloat16* out;
  };
  int count = 0;
  Matrix of[kMostBeside];
};

__device__ void convert(const Beside::Matrix& m, unsigned block, unsigned blocks) {
  for (unsigned i = block * kThreads + threadIdx.x; i < m.total; i += blocks * kThreads) {
    const unsigned row = i / m.width, col = i % m.width;
    m.out[static_cast<std::int64_t>(row) * m.ld + col] = __float2bfloat16_rn(
        load_float(m.data, m.type, m.first + static_cast<std::int64_t>(row) * m.stride + col));
  }
}

// Eight columns of four rows, in pairs of bf16.
using Patch = std::uint32_t[4][4];

// The largest of a block's numbers, of which this thread has seen `most`.
__device__ float largest(float most) {
  __shared__ float of_warp[kThreads / 32];
  most = warp_max(most);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = most;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) most = fmaxf(most, of_warp[i]);
  return most;
}

// Rows `row` .. `row` + 3 from column `col` on. Pairs are compared as they are: unpacked, they
// would stay in twice the registers until they are stored.
template <class Source>
__device__ void decode_patch(const Source& source, const typename Source::Table& table,
                             const Blocks& b, int row, int col, Patch& patch,
                             __nv_bfloat162& most) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float v[8] = {};
    if (row + i < b.rows && col < b.width)
      source.decode8(table, b.first + (row + i) * b.stride + col, min(b.width - col, 8), v);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * j], v[2 * j + 1]);
      patch[i][j] = *reinterpret_cast<const std::uint32_t*>(&pair);
      most = __hmax2(most, __habs2(pair));
    }
  }
}

__device__ void store_as_they_lie(const Blocks& b, const Patch& patch, float factor, int row,
                                  int col) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    std::uint32_t pair[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      pair[j] = fp8_pair(low_bf16(patch[i][j]) * factor, high_bf16(patch[i][j]) * factor);
    if (row + i < b.rows)
      *reinterpret_cast<uint2*>(b.codes + (row + i) * b.ld + col) =
          make_uint2(pair[0] | pair[1] << 16, pair[2] | pair[3] << 16);
  }
}

constexpr int kWords = kFp8Group / 4;  // of a row of codes

// Into shared memory: word `quad` of the rows of codes that are the patch's columns.
__device__ void turn(std::uint32_t* words, const Patch& patch, float factor, int quad, int piece) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      v[i] = (j % 2 ? high_bf16(patch[i][j / 2]) : low_bf16(patch[i][j / 2])) * factor;
    words[(piece * 8 + j) * kWords + (quad ^ 2 * piece)] = fp8_word(v[0], v[1], v[2], v[3]);
  }
}

__device__ void store_turned(const Blocks& b, const std::uint32_t* words, int row_block,
                             int col_block) {
  __syncthreads();
#pragma unroll
  for (int turn = 0; turn < kFp8Across * kWords / 2 / kThreads; ++turn) {
    const int at = turn * kThreads + static_cast<int>(threadIdx.x), col = at / (kWords / 2),
              pair = at % (kWords / 2) * 2;
    if (col_block * kFp8Across + col >= b.width) continue;
    *reinterpret_cast<uint2*>(b.codes +
                              (static_cast<std::int64_t>(col_block) * kFp8Across + col) * b.ld +
                              row_block * kFp8Group + pair * 4) =
        *reinterpret_cast<const uint2*>(words + col * kWords + (pair ^ col / 8 * 2));
  }
}

template <class Source, bool turned>
__global__ void __launch_bounds__(kThreads, 2)
    decode_blocks_kernel(const Source source, const Blocks b,
                         const __grid_constant__ Beside beside) {
  const unsigned blocks = static_cast<unsigned>(b.row_blocks) * b.col_blocks;
  if (blockIdx.x >= blocks) {
    for (int i = 0; i < beside.count; ++i)
      convert(beside.of[i], blockIdx.x - blocks, gridDim.x - blocks);
    return;
  }
  __shared__ typename Source::Table table;
  fill(table);
  using S = Shape<turned>;
  const int col_block = blockIdx.x % b.col_blocks, row_block = blockIdx.x / b.col_blocks;
  const int quad = threadIdx.x / S::pieces, piece = threadIdx.x % S::pieces;
  const int row = row_block * S::rows + quad * 4, col = col_block * S::cols + piece * 8;
  Patch patch[2];
  __nv_bfloat162 most = __float2bfloat162_rn(0);
#pragma unroll
  for (int half = 0; half < 2; ++half)
    decode_patch(source, table, b, row + half * S::rows_of_half, col, patch[half], most);
  const Fp8Scale scale = fp8_scale(largest(fmaxf(__low2float(most), __high2float(most))));
  if constexpr (turned) {
    __shared__ std::uint32_t words[kFp8Across * kWords];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      turn(words, patch[half], scale.inverse, quad + half * S::rows_of_half / 4, piece);
    store_turned(b, words, row_block, col_block);
    if (threadIdx.x == 0)
      b.scales[(col_block * b.row_blocks + row_block) * kFp8WScale] = scale.value;
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      store_as_they_lie(b, patch[half], scale.inverse, row + half * S::rows_of_half, col);
    if (threadIdx.x == 0)
      b.scales[(row_block * b.col_blocks + col_block) * kFp8WScale] = scale.value;
  }
}

Blocks blocks_of(const Fp8Blocks& c) {
  Blocks b;
  b.stride = c.w.ld ? c.w.ld : c.w.cols;
  b.first = (c.w.first_row + c.row) * b.stride + c.col;
  b.rows = static_cast<int>(c.rows), b.width = static_cast<int>(c.width);
  b.row_blocks = static_cast<int>(ceil_div(c.rows, c.turned ? kFp8Group : kFp8Across));
  b.col_blocks = static_cast<int>(ceil_div(c.width, c.turned ? kFp8Across : kFp8Group));
  b.ld = static_cast<std::int64_t>(c.turned ? b.row_blocks : b.col_blocks) * kFp8Group;
  b.codes = c.codes, b.scales = c.scales;
  return b;
}

Beside beside_of(std::span<const Converted> converted) {
  Beside b;
  for (const Converted& c : converted) {
    const std::int64_t stride = c.m.ld ? c.m.ld : c.m.cols;
    b.of[b.count++] = {c.m.planes.data[0],
                       float_type(c.m.codec),
                       static_cast<unsigned>(stride),
                       static_cast<unsigned>(c.m.cols),
                       static_cast<unsigned>(c.m.rows * c.m.cols),
                       static_cast<unsigned>(c.ld),
                       c.m.first_row * stride,
                       static_cast<__nv_bfloat16*>(c.out)};
  }
  return b;
}

template <class Source>
void launch(const Source& source, const Fp8Blocks& c, const Beside& beside, cudaStream_t stream) {
  const Blocks b = blocks_of(c);
  unsigned most = 0;
  for (int i = 0; i < beside.count; ++i) most = std::max(most, beside.of[i].total);
  const unsigned more = std::min<unsigned>(
      (most + kThreads - 1) / kThreads, static_cast<unsigned>(8 * device_limits().multiprocessors));
  const unsigned grid = static_cast<unsigned>(b.row_blocks) * b.col_blocks + more;
  c.turned ? decode_blocks_kernel<Source, true><<<grid, kThreads, 0, stream>>>(source, b, beside)
           : decode_blocks_kernel<Source, false><<<grid, kThreads, 0, stream>>>(source, b, beside);
  check_launch("decode_blocks");
}

}  // namespace

void decode_blocks(const Fp8Blocks& c, std::span<const Converted> converted, cudaStream_t stream) {
  const Beside beside = beside_of(converted);
  const Codec codec = c.w.codec;
  if (!quantized(codec))
    return launch(HalfSource{c.w.planes.data[0], float_type(codec)}, c, beside, stream);
  if (codec == Codec::nf4)
    return launch(Nf4Source<true>{nf4_planes(c.w.planes, true)}, c, beside, stream);
  if (codec == Codec::nf4_plain)
    return launch(Nf4Source<false>{nf4_planes(c.w.planes, false)}, c, beside, stream);
  if (!with_block_codec(codec, [&](auto found) {
        constexpr Codec which = found.value;
        launch(BlockSource<which>{static_cast<const typename Piece<which>::Block*>(
                   c.w.planes.data[0])},
               c, beside, stream);
      }))
    check(cudaErrorInvalidValue, "decode_blocks: this format has no decoder");
}

}  // namespace supersonic::cuda
