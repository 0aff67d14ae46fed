// Embedding rows: gather from a table of floats or of any weight format, and the scatter-add that
// is its backward. Results do not depend on the number of threads. An id outside the table throws
// Error before anything is written.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/dtype.h"
#include "formats/format.h"

namespace supersonic::cpu {

struct EmbeddingGather {
  const std::int32_t* ids = nullptr;  // (n)
  const void* table = nullptr;        // (rows, d) f32, bf16 or f16; unused when format is set
  const Format* format = nullptr;     // the table's weight format, or null
  Planes planes;                      // the table's bytes when format is set
  void* out = nullptr;                // (n, d) f32 or bf16
  void* workspace = nullptr;          // embedding_gather_workspace bytes
  std::int64_t n = 0, rows = 0, d = 0;
  DType table_type = DType::f32, out_type = DType::f32;
};
std::size_t embedding_gather_workspace(const EmbeddingGather& a, int threads);

struct EmbeddingScatter {
  const std::int32_t* ids = nullptr;  // (n); rows are added in this order
  const void* dy = nullptr;           // (n, d) f32 or bf16
  float* dtable = nullptr;            // (rows, d), added to
  std::int64_t n = 0, rows = 0, d = 0;
  DType type = DType::f32;
};

void check(const EmbeddingGather& a);  // throw Error; the kernels call them
void check(const EmbeddingScatter& a);

struct EmbeddingKernels {
  void (*gather)(Pool&, const EmbeddingGather&);
  void (*scatter_add)(Pool&, const EmbeddingScatter&);
};
const EmbeddingKernels& embedding_kernels(Isa level = isa());

}  // namespace supersonic::cpu
