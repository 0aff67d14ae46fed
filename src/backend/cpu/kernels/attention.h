// Attention with grouped queries, forward and backward, never holding the score matrix (arXiv
// 2205.14135). Query row i sees the keys lo[i] ... hi[i], both included: causal order, packed
// sequences, sliding windows and a KV cache are all this one mechanism. hi[i] < lo[i] means no key:
// output 0, lse -inf, or the sink where a head has one. o = softmax(scale * q k^T) v, in fp32. q head h reads kv head h / (heads /
// kv_heads). Rows are strided, so that q, k, v can be views into one buffer.
//
// Tiles hold keys in rows and queries in vector lanes, so that maxima and sums need no horizontal
// step; tiles outside the ranges are skipped. With bf16 tensors, or where the caller lets them be
// rounded, and AVX512_BF16 the products of many queries are vdpbf16ps, otherwise fp32. Limit: that instruction's rate for many queries, the bytes of K and V
// for few (the keys are then split over the threads). Forward results do not depend on the number
// of threads; backward results may, in the order of fp32 sums.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu {

constexpr std::int64_t kMaxHeadDim = 256;

struct AttentionShape {
  std::int64_t queries = 0, keys = 0;  // T, S
  std::int64_t heads = 0, kv_heads = 0,
               d = 0;  // heads a multiple of kv_heads; d a multiple of 8, at most 256
  float scale = 1;
  const std::int32_t* lo = nullptr;  // (T), >= 0
  const std::int32_t* hi = nullptr;  // (T), < S
  float cap = 0;                     // scaled scores become cap * tanh(score / cap); 0: they stay
  const float* sinks = nullptr;      // (heads) scores without a key, or null
};

// What a cache's rows are where they are not numbers: formats/fp8.h, formats/q8_0.h.
enum class CacheCodes : std::uint8_t { none, fp8, q8_0 };

struct AttentionForward {
  AttentionShape shape;
  const void* q = nullptr;  // (T, heads, d)
  const void* k = nullptr;  // (S, kv_heads, d)
  const void* v = nullptr;  // (S, kv_heads, d)
  void* o = nullptr;        // (T, heads, d)
  float* lse = nullptr;     // (T, heads) log-sum-exp of the scaled scores, or null
  void* workspace = nullptr;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, o_stride = 0;  // elements from row to row
  DType type = DType::f32;                                              // q and o: f32 or bf16
  DType kv_type = DType::f32;                                           // k and v: f32, bf16 or f16
  bool rounded = false;  // f32 queries and probabilities may be rounded to bf16, as bf16 keys are
  CacheCodes kv_codes = CacheCodes::none;  // else k and v are in a format; strides still count numbers
};

struct AttentionBackward {
  AttentionShape shape;
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const void* o = nullptr;
  const void* d_o = nullptr;   // (T, heads, d), the gradient of o
  const float* lse = nullptr;  // (T, heads), from forward
  void* dq = nullptr;          // (T, heads, d), or null
  void* dk = nullptr;          // (S, kv_heads, d), or null
  void* dv = nullptr;          // (S, kv_heads, d), or null
  void* workspace = nullptr;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, o_stride = 0, do_stride = 0;
  std::int64_t dq_stride = 0, dk_stride = 0, dv_stride = 0;
  DType type = DType::f32;  // all of them: f32 or bf16
};

// Bytes, for any lo and hi.
std::size_t attention_forward_workspace(const AttentionShape& shape, int threads);
std::size_t attention_backward_workspace(const AttentionShape& shape, int threads);

// Throw Error; the kernels call them.
void check(const AttentionShape& shape);
void check(const AttentionForward& call);

struct AttentionKernels {
  void (*forward)(Pool&, const AttentionForward&);
  void (*backward)(Pool&, const AttentionBackward&);
};
const AttentionKernels& attention_kernels(Isa level = isa());

}  // namespace supersonic::cpu
