// attention compiled for portable.
#include "backend/cpu/kernels/attention_kernels.h"
