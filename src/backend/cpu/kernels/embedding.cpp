// Checks, workspace size and choice of the instruction set for embedding rows.
#include "backend/cpu/kernels/embedding.h"

#include "backend/cpu/kernels/isa_table.h"
#include "core/error.h"

namespace supersonic::cpu {
namespace {

void check_ids(const std::int32_t* ids, std::int64_t n, std::int64_t rows) {
  for (std::int64_t i = 0; i < n; ++i)
    CHECK(ids[i] >= 0 && ids[i] < rows,
          "embedding: id {} at position {} lies outside the table of {} rows", ids[i], i, rows);
}

}  // namespace

void check(const EmbeddingGather& a) { check_ids(a.ids, a.n, a.rows); }
void check(const EmbeddingScatter& a) { check_ids(a.ids, a.n, a.rows); }

// A row that starts inside a block of the format is decoded from the block's start.
std::size_t embedding_gather_workspace(const EmbeddingGather& a, int threads) {
  if (!a.format) return 0;
  return static_cast<std::size_t>(a.d + a.format->block) * sizeof(float) *
         static_cast<std::size_t>(threads);
}

ISA_TABLE(EmbeddingKernels, embedding_kernels)

}  // namespace supersonic::cpu
