// Counts what the whole process asks of the allocator and of the kernel: malloc, calloc, realloc,
// aligned allocation, operator new (which ends in malloc), and mmap. To show that a steady state
// allocates nothing. Under a sanitizer, which has its own allocator, nothing is counted.
#pragma once
#include <cstdint>

namespace supersonic::testing {

bool counts_allocations();
std::uint64_t allocations();  // since the start

}  // namespace supersonic::testing
