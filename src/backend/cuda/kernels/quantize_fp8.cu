// Activations and gradients as E4M3 rows: a warp takes 256 columns of a row, eight a lane, finds
// the largest and writes codes and one scale. A block has 32 rows of one group of columns, four in
// flight a warp; neighbouring blocks have neighbouring groups. Bytes: three a bf16 number and a
// scale for 256; limit: the copy bandwidth.
#include "backend/cuda/kernels/fp8.cuh"

namespace supersonic::cuda {
namespace {

static_assert(kFp8Group == 32 * 8);
constexpr int kThreads = 256, kLanes = 32, kRowsAtOnce = kThreads / kLanes, kTurns = 4;

struct Rows {
  const void* data;
  DType type;
  bool fast;  // whole vectors may be loaded
  std::int64_t rows, cols, ld, scales_ld;
  int groups;
  std::uint8_t* codes;
  float* scales;
};

__global__ void __launch_bounds__(kThreads) quantize_rows_kernel(const Rows r) {
  const int group = blockIdx.x % r.groups, lane = threadIdx.x % kLanes;
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x / r.groups) * (kRowsAtOnce * kTurns) +
      threadIdx.x / kLanes;
  const std::int64_t col = static_cast<std::int64_t>(group) * kFp8Group + lane * 8;
  const int count = static_cast<int>(r.cols - col < 8 ? r.cols - col : 8);
  float v[kTurns][8];
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const std::int64_t row = first + i * kRowsAtOnce;
    dense8(r.data, r.type, r.fast, row * r.cols + col, row < r.rows ? count : 0, v[i]);
  }
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const std::int64_t row = first + i * kRowsAtOnce;
    float most = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(v[i][j]));
    const Fp8Scale scale = fp8_scale(warp_max(most));
#pragma unroll
    for (int j = 0; j < 8; ++j) v[i][j] *= scale.inverse;
    if (row >= r.rows) continue;
    *reinterpret_cast<uint2*>(r.codes + row * r.ld + col) = make_uint2(
        fp8_word(v[i][0], v[i][1], v[i][2], v[i][3]), fp8_word(v[i][4], v[i][5], v[i][6], v[i][7]));
    if (lane == 0) r.scales[group * r.scales_ld + row] = scale.value;
  }
}

}  // namespace

void quantize_rows(const void* data, DType type, const Fp8Rows& s, void* out, cudaStream_t stream) {
  const std::int64_t element = static_cast<std::int64_t>(size_of(type));
  const Rows r{data,
               type,
               reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && s.cols * element % 16 == 0,
               s.rows,
               s.cols,
               s.ld(),
               s.scales_ld(),
               static_cast<int>(s.groups()),
               static_cast<std::uint8_t*>(out),
               reinterpret_cast<float*>(static_cast<char*>(out) + s.scales_at())};
  const std::int64_t blocks = s.groups() * ceil_div(s.rows, kRowsAtOnce * kTurns);
  quantize_rows_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(r);
  check_launch("quantize_rows");
}

}  // namespace supersonic::cuda
