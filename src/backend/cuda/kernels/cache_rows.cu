// Writing a coded KV cache takes a thread a number; reading it takes a thread eight numbers, which
// lie in one block. Both are bound by memory: 2 or 4 bytes of a number and one of its code.
#include "backend/cuda/kernels/cache_rows.h"

#include "backend/cuda/kernels/cache_rows.cuh"
#include "backend/cuda/kernels/scalar.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = 4096;

template <CacheCodes codes>
__global__ void __launch_bounds__(kThreads) append_codes(CacheAppend a, FaultSink faults) {
  const std::int64_t at = *a.at, thread = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at < 0 || at + a.tokens > a.capacity) {
    if (thread == 0) report_fault(faults, FaultKind::cache_row, at, a.tokens, a.capacity);
    return;
  }
  for (std::int64_t i = thread; i < a.tokens * a.row; i += std::int64_t{gridDim.x} * kThreads)
    encode_number(codes, a.cache.data, at * a.row + i, load_scalar<float>(a.x.data, a.x.type, i));
}

template <CacheCodes codes>
__device__ void decode_eight(const void* plane, std::int64_t at, float (&out)[8]) {
  if constexpr (codes == CacheCodes::fp8) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      out[i] = formats::Fp8::value(static_cast<const std::uint8_t*>(plane)[at + i]);
  } else {
    const auto& block = static_cast<const formats::Q8_0::Block*>(plane)[at / 32];
    const float d = __half2float(__ushort_as_half(block.d.bits));
    const std::int8_t* from = block.qs + at % 32;
#pragma unroll
    for (int i = 0; i < 8; i += 2) {  // a block starts at an even address
      const std::uint16_t pair = *reinterpret_cast<const std::uint16_t*>(from + i);
      out[i] = d * static_cast<float>(static_cast<std::int8_t>(pair & 255));
      out[i + 1] = d * static_cast<float>(static_cast<std::int8_t>(pair >> 8));
    }
  }
}

template <CacheCodes codes>
__global__ void __launch_bounds__(kThreads) decode_rows(CacheReader a) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * 8;
  if (i >= a.rows * a.count) return;
  const std::int64_t row = i / a.count;
  float x[8];
  decode_eight<codes>(blockIdx.y ? a.v : a.k, row * a.row + a.first + (i - row * a.count), x);
  void* out = blockIdx.y ? a.out_v : a.out_k;
  if (a.out_type == DType::bf16) {
    reinterpret_cast<uint4*>(out)[i / 8] = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]),
                                                      pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
  } else {
    auto* to = reinterpret_cast<float4*>(out) + i / 4;
    to[0] = make_float4(x[0], x[1], x[2], x[3]), to[1] = make_float4(x[4], x[5], x[6], x[7]);
  }
}

}  // namespace

void append_coded_rows(const CacheAppend& a, CacheCodes codes, FaultSink faults,
                       cudaStream_t stream) {
  const std::int64_t n = a.tokens * a.row;
  if (n == 0) return;
  const std::int64_t all = ceil_div(n, kThreads);
  const auto blocks = static_cast<unsigned>(all < kMostBlocks ? all : kMostBlocks);
  if (codes == CacheCodes::fp8)
    append_codes<CacheCodes::fp8><<<blocks, kThreads, 0, stream>>>(a, faults);
  else
    append_codes<CacheCodes::q8_0><<<blocks, kThreads, 0, stream>>>(a, faults);
  check_launch("kv_append");
}

void decode_cache_rows(const CacheReader& a, cudaStream_t stream) {
  if (a.rows * a.count == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(a.rows * a.count, 8 * kThreads)), 2);
  if (a.codes == CacheCodes::fp8)
    decode_rows<CacheCodes::fp8><<<grid, kThreads, 0, stream>>>(a);
  else
    decode_rows<CacheCodes::q8_0><<<grid, kThreads, 0, stream>>>(a);
  check_launch("decoding a cache");
}

}  // namespace supersonic::cuda
