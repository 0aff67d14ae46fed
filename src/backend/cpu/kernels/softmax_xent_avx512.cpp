// softmax_xent compiled for avx512.
#if defined(__x86_64__)
#include "backend/cpu/kernels/softmax_xent_kernels.h"
#endif
