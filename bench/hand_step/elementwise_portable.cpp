// Elementwise work compiled for any machine.
#include "hand_step/elementwise_kernels.h"
