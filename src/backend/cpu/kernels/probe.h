// The machine's own limits, measured now on all threads of a pool: what a benchmark's figures are fractions of.
// Arithmetic runs on registers, with the widest instructions that isa() allows; reading streams a buffer far larger than
// the caches. The best of several runs counts. Takes about a second in all.
#pragma once
#include <cstddef>

#include "backend/cpu/pool.h"

namespace supersonic::cpu {

struct Limits {
  double fp32 = 0;  // operations per second, a multiply-add being two
  double bf16 = 0;  // fp32 where the instruction set has no bf16 dot product
  double int8 = 0;
  double read = 0;  // bytes per second
};

Limits probe_limits(Pool& pool);
// Bytes per second that all threads read from a buffer of this size, for working sets that fit a cache.
double probe_read(Pool& pool, std::size_t bytes);

}  // namespace supersonic::cpu
