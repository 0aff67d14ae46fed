// embedding compiled for portable.
#include "backend/cpu/kernels/embedding_kernels.h"
