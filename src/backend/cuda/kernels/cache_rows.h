// Rows of a coded KV cache: numbers go in, and come out for the attention kernels that read numbers
// alone.
#pragma once
#include "backend/cuda/kernels/cache_codes.h"
#include "backend/cuda/kernels/primitive.h"

namespace supersonic::cuda {

// As append_rows(), to a cache of codes; row: a multiple of 32 for Q8_0.
void append_coded_rows(const CacheAppend& a, CacheCodes codes, FaultSink faults,
                       cudaStream_t stream);

// Numbers first .. first + count - 1 of each row of k and of v, dense and one after the other.
struct CacheReader {
  CacheCodes codes = CacheCodes::none;
  const void *k = nullptr, *v = nullptr;    // (rows, row) codes
  void *out_k = nullptr, *out_v = nullptr;  // (rows, count) f32 or bf16, 16-byte aligned
  DType out_type = DType::bf16;
  std::int64_t rows = 0, row = 0, first = 0, count = 0;  // multiples of 8; Q8_0: row of 32
};
void decode_cache_rows(const CacheReader& a, cudaStream_t stream);

}  // namespace supersonic::cuda
