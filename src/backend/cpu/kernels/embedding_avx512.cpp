// embedding compiled for avx512.
#if defined(__x86_64__)
#include "backend/cpu/kernels/embedding_kernels.h"
#endif
