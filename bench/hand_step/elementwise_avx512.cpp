// Elementwise work compiled for avx512.
#if defined(__x86_64__)
#include "hand_step/elementwise_kernels.h"
#endif
