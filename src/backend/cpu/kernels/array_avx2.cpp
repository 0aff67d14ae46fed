// array compiled for avx2.
#if defined(__x86_64__)
#include "backend/cpu/kernels/array_kernels.h"
#endif
