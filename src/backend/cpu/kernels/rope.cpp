// Choice of the instruction set for rotary position embedding.
#include "backend/cpu/kernels/rope.h"

#include "backend/cpu/kernels/isa_table.h"
#include "core/error.h"

namespace supersonic::cpu {

void check(const Rope& a) {
  CHECK(a.rotary >= 0 && a.rotary % 2 == 0 && a.rotary <= a.d && a.rotary <= kMaxRotary,
        "rope: {} of {} dimensions cannot turn; an even number up to {} can", a.rotary, a.d,
        kMaxRotary);
}

ISA_TABLE(RopeKernels, rope_kernels)

}  // namespace supersonic::cpu
