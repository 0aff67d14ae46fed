// adamw compiled for avx2.
#if defined(__x86_64__)
#include "backend/cpu/kernels/adamw_kernels.h"
#endif
