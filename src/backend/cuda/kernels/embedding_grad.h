// The gradient of a table of embeddings: rows of dy added to the rows of the table that they were
// read from, in the order of tokens, without atomics, so that gradients repeat bit for bit.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace supersonic::cuda {

struct EmbeddingGradCall {
  const std::int32_t* ids =
      nullptr;  // (tokens); what lies outside of the table is left out (its reader reported it)
  const void* dy = nullptr;  // (tokens, d) f32 or bf16
  DType type = DType::f32;
  float* table = nullptr;  // (rows, d), added to
  std::int64_t tokens = 0, d = 0, rows = 0;
};

std::size_t embedding_grad_workspace(std::int64_t tokens);
void embedding_grad(const EmbeddingGradCall& call, void* workspace, cudaStream_t stream);

}  // namespace supersonic::cuda
