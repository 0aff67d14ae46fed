// rms_norm compiled for avx2.
#if defined(__x86_64__)
#include "backend/cpu/kernels/rms_norm_kernels.h"
#endif
