// Checks, workspace sizes and choice of the instruction set for attention.
#include "backend/cpu/kernels/attention.h"

#include "backend/cpu/kernels/attention_layout.h"
#include "backend/cpu/kernels/isa_table.h"
#include "core/error.h"

namespace supersonic::cpu {

void check(const AttentionShape& s) {
  CHECK(s.d > 0 && s.d % 8 == 0 && s.d <= kMaxHeadDim,
        "attention: head size {} is not a multiple of 8 up to {}", s.d, kMaxHeadDim);
  CHECK(s.kv_heads > 0 && s.heads % s.kv_heads == 0,
        "attention: {} heads cannot share {} kv heads evenly", s.heads, s.kv_heads);
  CHECK(s.scale > 0, "attention: scale must be positive, got {}", s.scale);
  CHECK(s.cap >= 0, "attention: the cap must not be negative, got {}", s.cap);
  for (std::int64_t i = 0; i < s.queries; ++i)
    CHECK(s.hi[i] < s.lo[i] || (s.lo[i] >= 0 && s.hi[i] < s.keys),
          "attention: query {} names keys {} to {}, outside 0 to {}", i, s.lo[i], s.hi[i],
          s.keys - 1);
}

void check(const AttentionForward& a) {
  check(a.shape);
  CHECK(a.kv_codes != CacheCodes::q8_0 ||
            (a.shape.d % 32 == 0 && a.k_stride % 32 == 0 && a.v_stride % 32 == 0),
        "attention: q8_0 caches need head sizes that are multiples of 32, got {}", a.shape.d);
}

std::size_t attention_forward_workspace(const AttentionShape& s, int threads) {
  return AttentionForwardLayout(s, threads).bytes();
}
std::size_t attention_backward_workspace(const AttentionShape& s, int threads) {
  return AttentionBackwardLayout(s, threads).bytes();
}

ISA_TABLE(AttentionKernels, attention_kernels)

}  // namespace supersonic::cpu
