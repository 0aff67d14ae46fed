// What the decoders to blocks of E4M3 share. A block is 256 along K by 128 weights: a thread block
// decodes it into registers, as bf16, finds the largest, and writes codes with one scale, as they
// lie or turned. Further blocks of the launch convert an adapter's matrices.
#pragma once
#include "backend/cuda/kernels/fp8.cuh"
#include "backend/cuda/kernels/panel_sources.cuh"

namespace supersonic::cuda {

constexpr int kBlockThreads = 512, kCodeWords = kFp8Group / 4;
// Blocks at once on a multiprocessor. Where conversions to E4M3 are no instructions, this is
// compiled and never runs.
#if __CUDA_ARCH__ >= 890
constexpr int kBlocksAtOnce = 2;
#else
constexpr int kBlocksAtOnce = 1;
#endif

// The rectangle, and the blocks of it.
struct CodeBlocks {
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
  Matrix of[2 * kMaxGemmTerms];
};

// What a launch gets, whatever decodes: host code, in decode_fp8.cu.
struct BlocksLaunch {
  CodeBlocks blocks;
  Beside beside;
  unsigned grid;
};

// By words, where there is code for the format and the matrix is aligned; false: there is none.
bool decode_words(const Fp8Blocks& c, const BlocksLaunch& launch, cudaStream_t stream);

// To bf16, by `blocks` thread blocks of which this is one.
__device__ inline void convert(const Beside::Matrix& m, unsigned block, unsigned blocks) {
  for (unsigned i = block * kBlockThreads + threadIdx.x; i < m.total; i += blocks * kBlockThreads) {
    const unsigned row = i / m.width, col = i % m.width;
    m.out[static_cast<std::int64_t>(row) * m.ld + col] = __float2bfloat16_rn(
        load_float(m.data, m.type, m.first + static_cast<std::int64_t>(row) * m.stride + col));
  }
}

// For a block past those of the rectangle: its part of the matrices beside.
__device__ inline bool converts(const CodeBlocks& b, const Beside& beside) {
  const unsigned blocks = static_cast<unsigned>(b.row_blocks) * b.col_blocks;
  if (blockIdx.x < blocks) return false;
  for (int i = 0; i < beside.count; ++i)
    convert(beside.of[i], blockIdx.x - blocks, gridDim.x - blocks);
  return true;
}

// The largest of a block's numbers, of which this thread has seen `most`.
__device__ inline float largest(__nv_bfloat162 most) {
  __shared__ float of_warp[kBlockThreads / 32];
  const float mine = warp_max(fmaxf(__low2float(most), __high2float(most)));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  float all = of_warp[0];
#pragma unroll
  for (int i = 1; i < kBlockThreads / 32; ++i) all = fmaxf(all, of_warp[i]);
  return all;
}

// A pair of numbers as it is kept. Pairs are compared as they are: unpacked, they would stay in
// twice the registers until they are stored.
__device__ inline std::uint32_t keep_pair(float low, float high, __nv_bfloat162& most) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  most = __hmax2(most, __habs2(pair));
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

}  // namespace supersonic::cuda
