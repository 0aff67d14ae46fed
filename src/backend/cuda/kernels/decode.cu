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
constexpr int kDecodedFloats =
    8192;  // in shared memory: 32 KiB of blocks, and one float of padding each

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

template <class Codec>
constexpr int blocks_at_once =
    kDecodedFloats / Codec::weights < kThreads ? kDecodedFloats / Codec::weights : kThreads;

template <class Codec>
__device__ void decode_block(const typename Codec::Block& b, float* out) {
  if constexpr (requires { typename Codec::Table; }) {
    formats::decode_pieces<Codec>(b, out, device_table<typename Codec::Table>);
  } else {
    Codec::decode(b, out);
  }
}

template <class Codec>
__global__ void __launch_bounds__(kThreads) decode_blocks(RowReader a, FaultSink faults) {
  constexpr int kWeights = Codec::weights, kBlocks = blocks_at_once<Codec>, kPadded = kWeights + 1;
  __shared__ float decoded[kBlocks * kPadded];
  const std::int64_t of_row = a.d / kWeights, total = a.rows * of_row,
                     first = std::int64_t{blockIdx.x} * kBlocks;
  const std::int64_t mine = first + threadIdx.x;
  if (threadIdx.x < kBlocks && mine < total) {
    float* out = decoded + threadIdx.x * kPadded;
    const std::int64_t row = source_row(a, mine / of_row, faults);
    if (row >= 0) {
      decode_block<Codec>(
          static_cast<const typename Codec::Block*>(a.planes.data[0])[row * of_row + mine % of_row],
          out);
    } else {
      for (int i = 0; i < kWeights; ++i) out[i] = 0;
    }
  }
  __syncthreads();
  const std::int64_t left = (total - first) * kWeights;
  const int count = left < kBlocks * kWeights ? static_cast<int>(left) : kBlocks * kWeights;
  for (int i = threadIdx.x; i < count; i += kThreads)
    store_scalar(a.out, a.out_type, first * kWeights + i,
                 decoded[i / kWeights * kPadded + i % kWeights]);
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

template <class Codec>
bool launch_if(const RowReader& a, FaultSink faults, cudaStream_t stream) {
  if (a.format->name != Codec::name) return false;
  decode_blocks<Codec>
      <<<grid_of(a.rows * (a.d / Codec::weights), blocks_at_once<Codec>), kThreads, 0, stream>>>(
          a, faults);
  return true;
}

template <class... Codec>
bool launch_codec(formats::CodecList<Codec...>, const RowReader& a, FaultSink faults,
                  cudaStream_t stream) {
  return (launch_if<Codec>(a, faults, stream) || ...);
}
template <class... Codec>
bool in_list(formats::CodecList<Codec...>, const Format& f) {
  return ((f.name == Codec::name) || ...);
}

}  // namespace

bool can_decode(const Format& f) {
  return in_list(formats::BlockCodecs{}, f) || f.name == formats::Nf4::name ||
         f.name == formats::Nf4::plain_name || f.name == formats::Fp8::name;
}

void read_rows(const RowReader& a, FaultSink faults, cudaStream_t stream) {
  const std::int64_t n = a.rows * a.d;
  if (n == 0) return;
  if (!a.format) {
    gather_rows<<<grid_of(n, kThreads), kThreads, 0, stream>>>(a, faults);
  } else if (a.format->name == formats::Nf4::name) {
    decode_nf4<true><<<grid_of(n, kThreads), kThreads, 0, stream>>>(a, faults);
  } else if (a.format->name == formats::Nf4::plain_name) {
    decode_nf4<false><<<grid_of(n, kThreads), kThreads, 0, stream>>>(a, faults);
  } else if (!launch_if<formats::Fp8>(a, faults, stream)) {
    launch_codec(formats::BlockCodecs{}, a, faults, stream);
  }
  check_launch("decoding rows");
}

}  // namespace supersonic::cuda
