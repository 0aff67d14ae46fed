// adamw compiled for portable.
#include "backend/cpu/kernels/adamw_kernels.h"
