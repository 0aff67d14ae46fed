// Choice of the instruction set for the kernels over logits.
#include "backend/cpu/kernels/softmax_xent.h"

#include "backend/cpu/kernels/isa_table.h"
#include "core/error.h"

namespace supersonic::cpu {

void check(const SoftmaxXent& a) {
  for (std::int64_t i = 0; i < a.rows; ++i)
    CHECK(a.labels[i] == kIgnoredLabel || (a.labels[i] >= 0 && a.labels[i] < a.vocab),
          "cross-entropy: label {} of row {} lies outside the vocabulary of {}", a.labels[i], i,
          a.vocab);
}

ISA_TABLE(SoftmaxXentKernels, softmax_xent_kernels)

}  // namespace supersonic::cpu
