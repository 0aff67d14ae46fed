// The types of a KV cache that the CPU's kernels know beyond numbers.
#pragma once
#include "backend/cpu/kernels/attention.h"
#include "core/storage.h"

namespace supersonic::cpu {

// none: numbers, or a format that no kernel here reads.
CacheCodes cache_codes(const Spec& cache);

}  // namespace supersonic::cpu
