// attention compiled for avx2.
#if defined(__x86_64__)
#include "backend/cpu/kernels/attention_kernels.h"
#endif
