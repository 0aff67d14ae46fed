// array compiled for avx512.
#if defined(__x86_64__)
#include "backend/cpu/kernels/array_kernels.h"
#endif
