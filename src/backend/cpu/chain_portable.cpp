#include "backend/cpu/chain_simd.h"
