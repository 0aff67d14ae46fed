// Rotary position embedding: pairs of each head are turned by position * inv_freq[pair], and the
// result is multiplied by an attention factor (YaRN; 1 otherwise). The backward pass is the same
// with inverse = true. The angle is reduced in fp64, so positions of 1e6 and more keep full fp32
// accuracy. Rows are strided, so that q and k can be views into one wider buffer. Bound by
// bandwidth: one read, one write.
#pragma once
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu {

enum class RopePairing : std::uint8_t {
  halves,      // element i pairs with i + rotary/2 (Hugging Face)
  interleaved  // element 2i pairs with 2i + 1 (Meta's and GGUF's llama files)
};

struct Rope {
  const void* x = nullptr;                  // (tokens, heads, d), row stride x_stride elements
  void* y = nullptr;                        // the same shape, row stride y_stride; may be x
  const std::int32_t* positions = nullptr;  // (tokens)
  const float* inv_freq = nullptr;          // (rotary / 2), already scaled for long contexts
  std::int64_t tokens = 0, heads = 0, d = 0, x_stride = 0, y_stride = 0;
  std::int64_t rotary = 0;  // how many leading elements of a head turn: even, <= min(d, kMaxRotary)
  float factor = 1;
  RopePairing pairing = RopePairing::halves;
  bool inverse = false;     // turn backwards (the gradient)
  DType type = DType::f32;  // f32 or bf16
};

constexpr int kMaxRotary = 1024;

void check(const Rope& a);  // throws Error; the kernels call it

struct RopeKernels {
  void (*rope)(Pool&, const Rope&);
};
const RopeKernels& rope_kernels(Isa level = isa());

}  // namespace supersonic::cpu
