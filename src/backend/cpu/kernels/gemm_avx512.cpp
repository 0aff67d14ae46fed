// The inner loops for AVX-512 with VNNI and BF16: sixteen fp32 lanes, a 14 x 32 tile in 28 of 32
// registers.
#if defined(__x86_64__)
#define GEMM_LANES 16
#define GEMM_ROWS 14
#define GEMM_VECTORS 2
#include "backend/cpu/kernels/gemm_generic.h"

namespace supersonic::cpu {

const Inner& inner_avx512() {
  static constexpr Inner inner = generic_inner<generic_to_f32>();
  return inner;
}

}  // namespace supersonic::cpu
#endif
