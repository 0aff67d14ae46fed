#include "backend/cuda/kernels/decode.h"

#include "backend/cuda/kernels/pieces.cuh"
#include "backend/cuda/kernels/scalar.h"
#include "formats/dynamic8.h"
#include "formats/fp8.h"
#include "formats/list.h"
#include "formats/nf4.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 256;

__device__ const formats::Dynamic8 scale_map(true);
struct Nf4Values {  // a copy that device code can index
  float values[16] = {};
  constexpr Nf4Values() {
    for (int i = 0; i < 16; ++i) values[i] = formats::Nf4::table[i];
  }
};
__constant__ const Nf4Values nf4_values{};

// The source row of result row r; -1 for an id that lies outside, which is reported.
__device__ inline std::int64_t source_row(const RowReader& a, std::int64_t r, FaultSink faults) {
  if (!a.ids) return r;
  const std::int64_t id = a.ids[r];
  if (id >= 0 && id < a.table_rows) return id;
  report_fault(faults, FaultKind::embedding_id, id, r, a.table_rows);
  return -1;
}

template <Codec C>
__global__ void __launch_bounds__(kThreads) decode_pieces(RowReader a, FaultSink faults) {
  using P = Piece<C>;
  constexpr int kOfBlock = P::weights / 8;
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, of_row = a.d / 8;
  if (p >= a.rows * of_row) return;
  const std::int64_t row = source_row(a, p / of_row, faults), at = row * of_row + p % of_row;
  float v[8] = {};
  if (row >= 0)
    P::decode8(static_cast<const typename P::Block*>(a.planes.data[0])[at / kOfBlock],
               static_cast<int>(at % kOfBlock), v);
#pragma unroll
  for (int i = 0; i < 8; ++i) store_scalar(a.out, a.out_type, p * 8 + i, v[i]);
}

__global__ void __launch_bounds__(kThreads) decode_fp8(RowReader a, FaultSink faults) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.rows * a.d) return;
  const std::int64_t row = source_row(a, i / a.d, faults);
  const auto* codes = static_cast<const std::uint8_t*>(a.planes.data[0]);
  store_scalar(a.out, a.out_type, i,
               row >= 0 ? formats::Fp8::value(codes[row * a.d + i % a.d]) : 0.0f);
}

// NF4 blocks lie over the flattened matrix and may cross the end of a row: an element a thread.
template <bool nested>
__global__ void __launch_bounds__(kThreads) decode_nf4(RowReader a, FaultSink faults) {
  using formats::Nf4;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.rows * a.d) return;
  const std::int64_t row = source_row(a, i / a.d, faults);
  float value = 0;
  if (row >= 0) {
    const std::int64_t at = row * a.d + i % a.d, block = at / Nf4::weights;
    const int code =
        static_cast<const std::uint8_t*>(a.planes.data[0])[at / 2] >> (at % 2 ? 0 : 4) & 15;
    float scale;
    if constexpr (nested) {
      const float step =
          scale_map.values[static_cast<const std::uint8_t*>(a.planes.data[1])[block]];
      scale = step * static_cast<const float*>(a.planes.data[2])[block / Nf4::scales_per_block] +
              *static_cast<const float*>(a.planes.data[3]);
    } else {
      scale = static_cast<const float*>(a.planes.data[1])[block];
    }
    value = nf4_values.values[code] * scale;
  }
  store_scalar(a.out, a.out_type, i, value);
}

__global__ void __launch_bounds__(kThreads) gather_rows(RowReader a, FaultSink faults) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.rows * a.d) return;
  const std::int64_t row = source_row(a, i / a.d, faults);
  store_scalar(a.out, a.out_type, i,
               row >= 0 ? load_scalar<float>(a.table, a.table_type, row * a.d + i % a.d) : 0.0f);
}

unsigned grid_of(std::int64_t n, std::int64_t each) {
  return static_cast<unsigned>((n + each - 1) / each);
}

}  // namespace

bool can_decode(const Format& f) {
  return codec_of(DType::u8, &f) != Codec::none || f.name == formats::Fp8::name;
}

void read_rows(const RowReader& a, FaultSink faults, cudaStream_t stream) {
  const std::int64_t n = a.rows * a.d;
  if (n == 0) return;
  const Codec codec = a.format ? codec_of(DType::u8, a.format) : Codec::none;
  const unsigned elements = grid_of(n, kThreads);
  if (!a.format) {
    gather_rows<<<elements, kThreads, 0, stream>>>(a, faults);
  } else if (codec == Codec::nf4) {
    decode_nf4<true><<<elements, kThreads, 0, stream>>>(a, faults);
  } else if (codec == Codec::nf4_plain) {
    decode_nf4<false><<<elements, kThreads, 0, stream>>>(a, faults);
  } else if (codec == Codec::none) {
    decode_fp8<<<elements, kThreads, 0, stream>>>(a, faults);
  } else {
    with_block_codec(codec, [&](auto c) {
      decode_pieces<c.value><<<grid_of(n, 8 * kThreads), kThreads, 0, stream>>>(a, faults);
    });
  }
  check_launch("decoding rows");
}

}  // namespace supersonic::cuda
