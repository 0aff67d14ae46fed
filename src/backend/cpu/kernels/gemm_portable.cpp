// The inner loops for any processor: four fp32 lanes (SSE2, NEON), a 6 x 8 tile in 16 registers, 6
// x 16 in 32.
#define GEMM_LANES 4
#define GEMM_ROWS 6
#if defined(__aarch64__)
#define GEMM_VECTORS 4
#else
#define GEMM_VECTORS 2
#endif
#include "backend/cpu/kernels/gemm_generic.h"

namespace supersonic::cpu {

const Inner& inner_portable() {
  static constexpr Inner inner = generic_inner<generic_to_f32>();
  return inner;
}

}  // namespace supersonic::cpu
