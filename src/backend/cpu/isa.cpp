// Which instruction set the kernels may use: what the processor has, what the operating system
// saves on a context switch (XCR0), and what SUPERSONIC_ISA allows. Decided once, at the first
// call.
#include <cstdlib>
#include <cstring>

#include "backend/cpu/pool.h"
#include "core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace supersonic::cpu {
namespace {

#if defined(__x86_64__)
Isa detect() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::portable;
  const auto has = [](unsigned reg, int bit) { return (reg >> bit & 1) != 0; };
  if (!has(c, 27) || !has(c, 28) || !has(c, 12) || !has(c, 29))
    return Isa::portable;  // OSXSAVE AVX FMA F16C
  unsigned xcr0 = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
  if ((xcr0 & 6) != 6) return Isa::portable;  // xmm and ymm state
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::portable;
  if (!has(b, 5) || !has(b, 8)) return Isa::portable;  // AVX2 BMI2
  const bool wide =
      has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31) && has(c, 11);  // F DQ BW VL VNNI
  if (!wide || (xcr0 & 0xe0) != 0xe0 || a < 1) return Isa::avx2;           // opmask and zmm state
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !has(a, 5)) return Isa::avx2;  // BF16
  return Isa::avx512;
}
#else
Isa detect() { return Isa::portable; }
#endif

Isa choose() {
  const Isa best = detect();
  const char* wish = std::getenv("SUPERSONIC_ISA");
  if (!wish || !*wish) return best;
  for (Isa i : {Isa::portable, Isa::avx2, Isa::avx512})
    if (std::strcmp(wish, name_of(i)) == 0) return i < best ? i : best;
  fail(ErrorKind::usage, "SUPERSONIC_ISA is '{}': use portable, avx2 or avx512", wish);
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* name_of(Isa isa) {
  constexpr const char* names[] = {"portable", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

}  // namespace supersonic::cpu
