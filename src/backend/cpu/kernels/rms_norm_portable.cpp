// rms_norm compiled for portable.
#include "backend/cpu/kernels/rms_norm_kernels.h"
