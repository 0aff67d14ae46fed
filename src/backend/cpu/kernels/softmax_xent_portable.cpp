// softmax_xent compiled for portable.
#include "backend/cpu/kernels/softmax_xent_kernels.h"
