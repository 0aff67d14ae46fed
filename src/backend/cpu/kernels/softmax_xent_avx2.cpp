// softmax_xent compiled for avx2.
#if defined(__x86_64__)
#include "backend/cpu/kernels/softmax_xent_kernels.h"
#endif
