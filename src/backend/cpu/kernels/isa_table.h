// Kernels are compiled once an instruction set, each into a table of function pointers in a
// namespace of its own:
//   ISA_TABLE(RmsNormKernels, rms_norm_kernels);
// in rms_norm.cpp defines `const RmsNormKernels& rms_norm_kernels(Isa)`, which picks among
// avx512::, avx2:: and portable::rms_norm_kernels(), defined by rms_norm_kernels.h in the three
// rms_norm_<isa>.cpp.
#pragma once
#include "backend/cpu/pool.h"

#if defined(__x86_64__)
#define ISA_TABLE(Table, name)                      \
  namespace avx512 {                                \
  const Table& name();                              \
  }                                                 \
  namespace avx2 {                                  \
  const Table& name();                              \
  }                                                 \
  namespace portable {                              \
  const Table& name();                              \
  }                                                 \
  const Table& name(Isa level) {                    \
    return level == Isa::avx512 ? avx512::name()    \
           : level == Isa::avx2 ? avx2::name()      \
                                : portable::name(); \
  }
#else
#define ISA_TABLE(Table, name) \
  namespace portable {         \
  const Table& name();         \
  }                            \
  const Table& name(Isa) { return portable::name(); }
#endif
