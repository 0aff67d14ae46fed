#if defined(__AVX2__)
#include "backend/cpu/chain_simd.h"
#endif
