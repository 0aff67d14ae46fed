// Choice of the instruction set for plain work on arrays.
#include "backend/cpu/kernels/array.h"

#include "backend/cpu/kernels/isa_table.h"

namespace supersonic::cpu {

ISA_TABLE(ArrayKernels, array_kernels)

}  // namespace supersonic::cpu
