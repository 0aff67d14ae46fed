#include "support/allocations.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

namespace {
std::atomic<std::uint64_t> count{0};
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t n) { return ++count, __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) { return ++count, __libc_calloc(n, size); }
void* realloc(void* p, std::size_t n) { return ++count, __libc_realloc(p, n); }
void* memalign(std::size_t align, std::size_t n) { return ++count, __libc_memalign(align, n); }
void* aligned_alloc(std::size_t align, std::size_t n) { return ++count, __libc_memalign(align, n); }
int posix_memalign(void** out, std::size_t align, std::size_t n) {
  ++count;
  *out = __libc_memalign(align, n);
  return *out ? 0 : ENOMEM;
}
void* mmap(void* address, std::size_t n, int protection, int flags, int file, off_t offset) {
  ++count;
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, n, protection, flags, file, offset));
}
}

bool supersonic::testing::counts_allocations() { return true; }

#else

bool supersonic::testing::counts_allocations() { return false; }

#endif

std::uint64_t supersonic::testing::allocations() { return count; }
