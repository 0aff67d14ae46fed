// Rows of a matrix as numbers: token embeddings (rows chosen by id) and dequantization (all rows).
// The numbers are those of the format's decode() on the CPU, bit for bit. A thread decodes eight
// weights of a block (pieces.cuh), so that a token's one row takes no longer than a launch.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/fault.h"
#include "core/dtype.h"
#include "formats/format.h"

namespace supersonic::cuda {

struct RowReader {
  const Format* format = nullptr;  // null: dense
  const void* table = nullptr;     // (table_rows, d) f32, bf16 or f16; unused when format is set
  Planes planes;                   // device addresses
  DType table_type = DType::f32;
  const std::int32_t* ids = nullptr;  // (rows); null: row r of the matrix is row r of the result
  void* out = nullptr;                // (rows, d)
  DType out_type = DType::f32;
  std::int64_t rows = 0, d = 0, table_rows = 0;
};
bool can_decode(const Format& format);
// An id outside of the table is reported, and its row is zero.
void read_rows(const RowReader& a, FaultSink faults, cudaStream_t stream);

}  // namespace supersonic::cuda
