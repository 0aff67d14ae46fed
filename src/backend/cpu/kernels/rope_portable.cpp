// rope compiled for portable.
#include "backend/cpu/kernels/rope_kernels.h"
