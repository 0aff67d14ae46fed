// rope compiled for avx512.
#if defined(__x86_64__)
#include "backend/cpu/kernels/rope_kernels.h"
#endif
