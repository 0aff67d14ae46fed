// Choice of the instruction set for elementwise work.
#include "hand_step/elementwise.h"

#include "backend/cpu/kernels/isa_table.h"

namespace supersonic::cpu {

ISA_TABLE(ElementwiseKernels, elementwise_kernels)

}  // namespace supersonic::cpu
