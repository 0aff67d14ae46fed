// Workspace size and choice of the instruction set for RMS normalisation.
#include "backend/cpu/kernels/rms_norm.h"

#include "backend/cpu/kernels/isa_table.h"

namespace supersonic::cpu {

std::size_t rms_norm_backward_workspace(std::int64_t rows, std::int64_t d) {
  return static_cast<std::size_t>(rms_norm_row_blocks(rows)) * static_cast<std::size_t>(d) *
         sizeof(float);
}

ISA_TABLE(RmsNormKernels, rms_norm_kernels)

}  // namespace supersonic::cpu
