// Weights as blocks of E4M3, of any format, by pieces of eight weights. A thread has eight columns
// of four rows, twice; turned, its four codes of a column are a word in shared memory, whose place
// is chosen so that no two lanes meet in a bank. Bytes: those of the stored weights and one a code;
// limit: the copy bandwidth, but loads of bytes cost more.
#include <algorithm>

#include "backend/cuda/kernels/decode_fp8.cuh"

namespace supersonic::cuda {
namespace {

// A block as it is stored: its rows and columns, and how threads take it, half after half.
template <bool turned>
struct Shape {
  static constexpr int rows = turned ? kFp8Group : kFp8Across,
                       cols = turned ? kFp8Across : kFp8Group, pieces = cols / 8,
                       rows_of_half = kBlockThreads / pieces * 4;
  static_assert(2 * rows_of_half == rows);
};

struct HalfSource {
  using Table = NoTable;
  const void* data;
  DType type;
  __device__ void decode8(const NoTable&, std::int64_t at, int count, float* out) const {
    const bool fast = (reinterpret_cast<std::uintptr_t>(data) + 2 * at) % 16 == 0;
    dense8(data, type, fast, at, count, out);
  }
};

// Eight columns of four rows, in pairs of bf16.
using Patch = std::uint32_t[4][4];

// Rows `row` .. `row` + 3 from column `col` on.
template <class Source>
__device__ void decode_patch(const Source& source, const typename Source::Table& table,
                             const CodeBlocks& b, int row, int col, Patch& patch,
                             __nv_bfloat162& most) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float v[8] = {};
    if (row + i < b.rows && col < b.width)
      source.decode8(table, b.first + (row + i) * b.stride + col, min(b.width - col, 8), v);
#pragma unroll
    for (int j = 0; j < 4; ++j) patch[i][j] = keep_pair(v[2 * j], v[2 * j + 1], most);
  }
}

__device__ void store_as_they_lie(const CodeBlocks& b, const Patch& patch, float factor, int row,
                                  int col) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float v[8];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      v[2 * j] = low_bf16(patch[i][j]) * factor, v[2 * j + 1] = high_bf16(patch[i][j]) * factor;
    if (row + i < b.rows)
      *reinterpret_cast<uint2*>(b.codes + (row + i) * b.ld + col) =
          make_uint2(fp8_word(v[0], v[1], v[2], v[3]), fp8_word(v[4], v[5], v[6], v[7]));
  }
}

// Into shared memory: word `quad` of the rows of codes that are the patch's columns.
__device__ void turn(std::uint32_t* words, const Patch& patch, float factor, int quad, int piece) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      v[i] = (j % 2 ? high_bf16(patch[i][j / 2]) : low_bf16(patch[i][j / 2])) * factor;
    words[(piece * 8 + j) * kCodeWords + (quad ^ 2 * piece)] = fp8_word(v[0], v[1], v[2], v[3]);
  }
}

__device__ void store_turned(const CodeBlocks& b, const std::uint32_t* words, int row_block,
                             int col_block) {
  __syncthreads();
#pragma unroll
  for (int turn = 0; turn < kFp8Across * kCodeWords / 2 / kBlockThreads; ++turn) {
    const int at = turn * kBlockThreads + static_cast<int>(threadIdx.x),
              col = at / (kCodeWords / 2), pair = at % (kCodeWords / 2) * 2;
    if (col_block * kFp8Across + col >= b.width) continue;
    *reinterpret_cast<uint2*>(b.codes +
                              (static_cast<std::int64_t>(col_block) * kFp8Across + col) * b.ld +
                              row_block * kFp8Group + pair * 4) =
        *reinterpret_cast<const uint2*>(words + col * kCodeWords + (pair ^ col / 8 * 2));
  }
}

template <class Source, bool turned>
__global__ void __launch_bounds__(kBlockThreads, kBlocksAtOnce)
    decode_pieces_kernel(const Source source, const CodeBlocks b,
                         const __grid_constant__ Beside beside) {
  if (converts(b, beside)) return;
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
  const Fp8Scale scale = fp8_scale(largest(most));
  if constexpr (turned) {
    __shared__ std::uint32_t words[kFp8Across * kCodeWords];
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

CodeBlocks blocks_of(const Fp8Blocks& c) {
  CodeBlocks b;
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

BlocksLaunch launch_of(const Fp8Blocks& c, std::span<const Converted> converted) {
  BlocksLaunch l{blocks_of(c), beside_of(converted), 0};
  unsigned most = 0;
  for (int i = 0; i < l.beside.count; ++i) most = std::max(most, l.beside.of[i].total);
  const unsigned more =
      std::min<unsigned>((most + kBlockThreads - 1) / kBlockThreads,
                         static_cast<unsigned>(8 * device_limits().multiprocessors));
  l.grid = static_cast<unsigned>(l.blocks.row_blocks) * l.blocks.col_blocks + more;
  return l;
}

template <class Source>
void launch(const Source& source, bool turned, const BlocksLaunch& l, cudaStream_t stream) {
  const auto kernel =
      turned ? decode_pieces_kernel<Source, true> : decode_pieces_kernel<Source, false>;
  kernel<<<l.grid, kBlockThreads, 0, stream>>>(source, l.blocks, l.beside);
  check_launch("decode_pieces");
}

}  // namespace

void decode_blocks(const Fp8Blocks& c, std::span<const Converted> converted, cudaStream_t stream) {
  const BlocksLaunch l = launch_of(c, converted);
  if (decode_words(c, l, stream)) return;
  const Codec codec = c.w.codec;
  if (!quantized(codec))
    return launch(HalfSource{c.w.planes.data[0], float_type(codec)}, c.turned, l, stream);
  if (codec == Codec::nf4)
    return launch(Nf4Source<true>{nf4_planes(c.w.planes, true)}, c.turned, l, stream);
  if (codec == Codec::nf4_plain)
    return launch(Nf4Source<false>{nf4_planes(c.w.planes, false)}, c.turned, l, stream);
  if (!with_block_codec(codec, [&](auto found) {
        constexpr Codec which = found.value;
        launch(BlockSource<which>{static_cast<const typename Piece<which>::Block*>(
                   c.w.planes.data[0])},
               c.turned, l, stream);
      }))
    check(cudaErrorInvalidValue, "decode_blocks: this format has no decoder");
}

}  // namespace supersonic::cuda
