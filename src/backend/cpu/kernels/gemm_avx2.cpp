// The inner loops for AVX2 with FMA: eight fp32 lanes, a 6 x 16 tile in 12 of 16 registers.
#if defined(__x86_64__)
#define GEMM_LANES 8
#define GEMM_ROWS 6
#define GEMM_VECTORS 2
#include "backend/cpu/kernels/gemm_generic.h"

namespace supersonic::cpu {

const Inner& inner_avx2() {
  static constexpr Inner inner = generic_inner<generic_to_f32>();
  return inner;
}

}  // namespace supersonic::cpu
#endif
