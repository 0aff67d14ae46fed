// Weights of any format, and floats of any type, as bf16 or f32: what the tiled products read
// ("family E"). A rectangle of a stored matrix becomes a dense panel.
#pragma once
#include <cuda_runtime_api.h>

#include <span>

#include "backend/cuda/kernels/codec.h"

namespace supersonic::cuda {

struct PanelCall {
  Codec codec = Codec::none;
  Planes planes;                   // device; plane 0 of a dense matrix is its data
  std::int64_t cols = 0;           // of the stored matrix
  std::int64_t row = 0, rows = 0;  // rows of the rectangle
  std::int64_t col = 0,
               width =
                   0;   // its columns; where they are not all of them: multiples of 8, as is `cols`
  void* out = nullptr;  // (rows, width), dense, 16-byte aligned
  DType out_type = DType::bf16;  // bf16 or f32
  const std::int32_t* live =
      nullptr;  // device; where given, nothing is done unless *live > live_from
  std::int32_t live_from = 0;
};

void decode_panel(const PanelCall& call, cudaStream_t stream);
// Several panels of one type. Floats share the launch of the first: an adapter's matrices cost
// next to nothing beside the weights that they belong to.
void decode_panels(std::span<const PanelCall> calls, cudaStream_t stream);

}  // namespace supersonic::cuda
