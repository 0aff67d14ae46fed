// Weights as blocks of E4M3: a thread block decodes 128 x 128 weights into registers, finds the
// largest, and writes codes with one scale, as they lie or turned. A thread has eight columns of
// four rows; turned, its four codes of a column are a word in shared memory, whose place is chosen
// so that no two lanes meet in a bank. Bytes: those of the stored weights and one a code; limit:
// the copy bandwidth.
#include <algorithm>

#include "backend/cuda/kernels/fp8.cuh"
#include "backend/cuda/kernels/panel_sources.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 512, kBlock = 128, kPieces = kBlock / 8, kWords = kBlock / 4;
static_assert(kBlock == kFp8Group && kThreads == kPieces * kWords);
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

// The largest of a block's numbers.
__device__ float largest(const float (&v)[4][8]) {
  __shared__ float of_warp[kThreads / 32];
  float most = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(v[i][j]));
  most = warp_max(most);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = most;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) most = fmaxf(most, of_warp[i]);
  return most;
}

__device__ void store_as_they_lie(const Blocks& b, const float (&v)[4][8], int row, int col) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (row + i < b.rows)
      *reinterpret_cast<uint2*>(b.codes + (row + i) * b.ld + col) =
          make_uint2(fp8_word(v[i][0], v[i][1], v[i][2], v[i][3]),
                     fp8_word(v[i][4], v[i][5], v[i][6], v[i][7]));
}

__device__ void store_turned(const Blocks& b, const float (&v)[4][8], int row_block,
                             int col_block) {
  __shared__ std::uint32_t words[kBlock * kWords];
  const int piece = threadIdx.x % kPieces, quad = threadIdx.x / kPieces;
#pragma unroll
  for (int j = 0; j < 8; ++j)
    words[(piece * 8 + j) * kWords + (quad ^ 2 * piece)] =
        fp8_word(v[0][j], v[1][j], v[2][j], v[3][j]);
  __syncthreads();
#pragma unroll
  for (int turn = 0; turn < kBlock * kWords / 2 / kThreads; ++turn) {
    const int at = turn * kThreads + static_cast<int>(threadIdx.x), col = at / (kWords / 2),
              pair = at % (kWords / 2) * 2;
    if (col_block * kBlock + col >= b.width) continue;
    *reinterpret_cast<uint2*>(b.codes +
                              (static_cast<std::int64_t>(col_block) * kBlock + col) * b.ld +
                              row_block * kBlock + pair * 4) =
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
  const int col_block = blockIdx.x % b.col_blocks, row_block = blockIdx.x / b.col_blocks;
  const int row = row_block * kBlock + threadIdx.x / kPieces * 4,
            col = col_block * kBlock + threadIdx.x % kPieces * 8;
  float v[4][8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) v[i][j] = 0;
    if (row + i < b.rows && col < b.width)
      source.decode8(table, b.first + (row + i) * b.stride + col, min(b.width - col, 8), v[i]);
  }
  const Fp8Scale scale = fp8_scale(largest(v));
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) v[i][j] *= scale.inverse;
  if constexpr (turned) {
    store_turned(b, v, row_block, col_block);
    if (threadIdx.x == 0)
      b.scales[(col_block * b.row_blocks + row_block) * kFp8WScale] = scale.value;
  } else {
    store_as_they_lie(b, v, row, col);
    if (threadIdx.x == 0)
      b.scales[(row_block * b.col_blocks + col_block) * kFp8WScale] = scale.value;
  }
}

Blocks blocks_of(const Fp8Blocks& c) {
  Blocks b;
  b.stride = c.w.ld ? c.w.ld : c.w.cols;
  b.first = (c.w.first_row + c.row) * b.stride + c.col;
  b.rows = static_cast<int>(c.rows), b.width = static_cast<int>(c.width);
  b.row_blocks = static_cast<int>(ceil_div(c.rows, kBlock));
  b.col_blocks = static_cast<int>(ceil_div(c.width, kBlock));
  b.ld = static_cast<std::int64_t>(c.turned ? b.row_blocks : b.col_blocks) * kBlock;
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
