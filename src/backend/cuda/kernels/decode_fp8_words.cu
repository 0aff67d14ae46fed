// Weights of Q4_K and Q6_K as blocks of E4M3, by groups of 32: a thread has 32 neighbouring columns
// of a row, twice. What a group shares is read once and its codes by words of a matrix that begins
// at a multiple of 16 bytes; values are those of the codec's scalar decode(). Turned, codes pass
// through shared memory, four of a row in a word, at places where no two lanes meet in a bank.
// Bytes: those of the stored weights and one a code; limit: the copy bandwidth.
#include "backend/cuda/kernels/decode_fp8.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kGroup = 32, kLanes = 128 / kGroup, kHalf = 128, kWords = kHalf / 4;

// Byte j of four packed codes below 2^8, as a float.
__device__ inline float code_of(std::uint32_t codes, int j) {
  constexpr std::uint32_t k2to23 = 0x4b000000;
  return __uint_as_float(__byte_perm(codes, k2to23, 0x7650 + j)) - 0x1p23f;
}

// Blocks of 144 bytes: half d, half dmin, 12 bytes of scales, 128 of codes.
struct WordsOfQ4K {
  const void* blocks;
  __device__ void decode(std::int64_t at, float (&out)[kGroup]) const {
    const uint4* const block = static_cast<const uint4*>(blocks) + at / 256 * 9;
    const int group = static_cast<int>(at & 255) / kGroup, shift = group % 4 * 8;
    const uint4 head = block[0], low = block[1 + group / 2 * 2], high = block[2 + group / 2 * 2];
    const std::uint32_t a = head.y >> shift, b = head.z >> shift, c = head.w >> shift;
    const std::uint32_t s = group < 4 ? a & 63 : (c & 15) | (a >> 2 & 48),
                        m = group < 4 ? b & 63 : (c >> 4 & 15) | (b >> 2 & 48);
    const float scale = half_of(head.x) * static_cast<float>(s),
                min = half_of(head.x >> 16) * static_cast<float>(m);
    const std::uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t codes = words[i] >> (group % 2 * 4) & 0x0f0f0f0f;
#pragma unroll
      for (int j = 0; j < 4; ++j)  // a product of 21 bits is exact
        out[4 * i + j] = __fmaf_rn(scale, code_of(codes, j), -min);
    }
  }
  static __device__ float half_of(std::uint32_t bits) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
  }
};

// Blocks of 210 bytes: 128 of low and 64 of high bits, 16 scales, half d.
struct WordsOfQ6K {
  using Block = formats::Q6_K::Block;
  const void* blocks;
  __device__ void decode(std::int64_t at, float (&out)[kGroup]) const {
    const Block& block = static_cast<const Block*>(blocks)[at / 256];
    const int group = static_cast<int>(at & 255) / kGroup, half = group / 4, part = group % 4;
    std::uint32_t low[8], high[8];
    load(block.ql + half * 64 + part % 2 * 32, low);
    load(block.qh + half * 32, high);
    const float d = half_bits(block.d);
    const float scales[2] = {d * static_cast<float>(block.scales[2 * group]),
                             d * static_cast<float>(block.scales[2 * group + 1])};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t codes =
          (low[i] >> (part / 2 * 4) & 0x0f0f0f0f) | (high[i] >> (part * 2) & 0x03030303) << 4;
#pragma unroll
      for (int j = 0; j < 4; ++j) out[4 * i + j] = scales[i / 4] * (code_of(codes, j) - 32.0f);
    }
  }
  // 32 bytes at an even address, from the five aligned pairs of words around them: a block goes on
  // for at least 18 bytes.
  static __device__ void load(const std::uint8_t* from, std::uint32_t (&to)[8]) {
    const int past = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 7);
    const auto* pairs = reinterpret_cast<const uint2*>(from - past);
    std::uint32_t words[10];
#pragma unroll
    for (int i = 0; i < 5; ++i) {
      const uint2 pair = pairs[i];
      words[2 * i] = pair.x, words[2 * i + 1] = pair.y;
    }
#pragma unroll
    for (int i = 0; i < 9; ++i) words[i] = past & 4 ? words[i + 1] : words[i];
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = __funnelshift_r(words[i], words[i + 1], (past & 2) * 8);
  }
};

// Thirty-two columns of a row, in pairs of bf16.
using Strip = std::uint32_t[kGroup / 2];

template <class Source>
__device__ void decode_strip(const Source& source, const CodeBlocks& b, int row, int col,
                             Strip& strip, __nv_bfloat162& most) {
  float v[kGroup] = {};
  if (row < b.rows && col < b.width) source.decode(b.first + row * b.stride + col, v);
#pragma unroll
  for (int i = 0; i < kGroup / 2; ++i) strip[i] = keep_pair(v[2 * i], v[2 * i + 1], most);
}

__device__ inline std::uint32_t code_word(const Strip& strip, int i, float factor) {
  const std::uint32_t a = strip[2 * i], b = strip[2 * i + 1];
  return fp8_word(low_bf16(a) * factor, high_bf16(a) * factor, low_bf16(b) * factor,
                  high_bf16(b) * factor);
}

__device__ void store_as_they_lie(const CodeBlocks& b, const Strip& strip, float factor, int row,
                                  int col) {
  if (row >= b.rows) return;
  auto* to = reinterpret_cast<uint4*>(b.codes + row * b.ld + col);
#pragma unroll
  for (int i = 0; i < 2; ++i)
    to[i] = make_uint4(code_word(strip, 4 * i, factor), code_word(strip, 4 * i + 1, factor),
                       code_word(strip, 4 * i + 2, factor), code_word(strip, 4 * i + 3, factor));
}

// Where the word of row 8 `eight` + i and columns 4 `word` .. lies: at this, with i * kWords added,
// and then i and `word`'s last three bits by exclusive or.
__device__ inline int place_of(int eight, int word) {
  return eight * 8 * kWords + (word ^ eight % 4 ^ eight / 4 * 8);
}

__device__ void keep_words(std::uint32_t* words, const Strip& strip, float factor) {
  const int thread = static_cast<int>(threadIdx.x), row = thread / kLanes,
            first =
                (place_of(row / 8, thread % kLanes * (kGroup / 4)) ^ row % 8) + row % 8 * kWords;
#pragma unroll
  for (int i = 0; i < kGroup / 4; ++i) words[first ^ i] = code_word(strip, i, factor);
}

// Bytes j of four words become word j.
__device__ inline void transpose_bytes(const std::uint32_t (&in)[4], std::uint32_t (&out)[4]) {
  const std::uint32_t low_a = __byte_perm(in[0], in[1], 0x5140),
                      low_b = __byte_perm(in[2], in[3], 0x5140),
                      high_a = __byte_perm(in[0], in[1], 0x7362),
                      high_b = __byte_perm(in[2], in[3], 0x7362);
  out[0] = __byte_perm(low_a, low_b, 0x5410), out[1] = __byte_perm(low_a, low_b, 0x7632);
  out[2] = __byte_perm(high_a, high_b, 0x5410), out[3] = __byte_perm(high_a, high_b, 0x7632);
}

// Half a block turned: each thread takes four columns of eight rows, sixteen neighbours a column.
__device__ void store_turned(const CodeBlocks& b, const std::uint32_t* words, int row, int col) {
  const int thread = static_cast<int>(threadIdx.x), eight = thread % 16,
            word = thread / 32 % 4 | thread / 16 % 2 << 2 | thread / 128 << 3,
            place = place_of(eight, word);
  std::uint32_t in[2][4], out[2][4];
#pragma unroll
  for (int i = 0; i < 8; ++i) in[i / 4][i % 4] = words[(place ^ i) + i * kWords];
  transpose_bytes(in[0], out[0]), transpose_bytes(in[1], out[1]);
  col += word * 4;
  std::uint8_t* to = b.codes + col * b.ld + row + eight * 8;
#pragma unroll
  for (int j = 0; j < 4; ++j, to += b.ld)
    if (col + j < b.width) *reinterpret_cast<uint2*>(to) = make_uint2(out[0][j], out[1][j]);
}

template <class Source, bool turned>
__global__ void __launch_bounds__(kBlockThreads, kBlocksAtOnce)
    decode_words_kernel(const Source source, const CodeBlocks b,
                        const __grid_constant__ Beside beside) {
  if (converts(b, beside)) return;
  constexpr int rows = turned ? kFp8Group : kFp8Across, cols = turned ? kFp8Across : kFp8Group;
  const int col_block = blockIdx.x % b.col_blocks, row_block = blockIdx.x / b.col_blocks,
            row = row_block * rows + static_cast<int>(threadIdx.x) / kLanes,
            col = col_block * cols + static_cast<int>(threadIdx.x) % kLanes * kGroup;
  constexpr int down = turned ? kHalf : 0, right = kHalf - down;  // to the second half
  Strip strips[2];
  __nv_bfloat162 most = __float2bfloat162_rn(0);
  decode_strip(source, b, row, col, strips[0], most);
  decode_strip(source, b, row + down, col + right, strips[1], most);
  const Fp8Scale scale = fp8_scale(largest(most));
  if constexpr (turned) {
    __shared__ std::uint32_t words[2][kHalf * kWords];
    keep_words(words[0], strips[0], scale.inverse);
    keep_words(words[1], strips[1], scale.inverse);
    __syncthreads();
    store_turned(b, words[0], row_block * rows, col_block * cols);
    store_turned(b, words[1], row_block * rows + kHalf, col_block * cols);
  } else {
    store_as_they_lie(b, strips[0], scale.inverse, row, col);
    store_as_they_lie(b, strips[1], scale.inverse, row, col + right);
  }
  const int of_k = turned ? row_block : col_block, across = turned ? col_block : row_block,
            groups = turned ? b.row_blocks : b.col_blocks;
  if (threadIdx.x == 0) b.scales[(across * groups + of_k) * kFp8WScale] = scale.value;
}

template <class Source>
bool launch(const Source& source, bool turned, const BlocksLaunch& l, cudaStream_t stream) {
  const auto kernel =
      turned ? decode_words_kernel<Source, true> : decode_words_kernel<Source, false>;
  kernel<<<l.grid, kBlockThreads, 0, stream>>>(source, l.blocks, l.beside);
  check_launch("decode_words");
  return true;
}

}  // namespace

bool decode_words(const Fp8Blocks& c, const BlocksLaunch& l, cudaStream_t stream) {
  const void* const blocks = c.w.planes.data[0];
  if (reinterpret_cast<std::uintptr_t>(blocks) % 16 != 0) return false;
  if (c.w.codec == Codec::q4_k) return launch(WordsOfQ4K{blocks}, c.turned, l, stream);
  if (c.w.codec == Codec::q6_k) return launch(WordsOfQ6K{blocks}, c.turned, l, stream);
  return false;
}

}  // namespace supersonic::cuda
