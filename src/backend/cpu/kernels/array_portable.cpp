// array compiled for portable.
#include "backend/cpu/kernels/array_kernels.h"
