// Attention with grouped queries, forward and backward, never holding the score matrix (arXiv
// 2205.14135). Query row i sees the keys lo[i] ... hi[i], both included; none where hi[i] < lo[i]:
// output 0, lse -inf. o = softmax(scale * q k^T) v; q head h reads kv head h / (heads / kv_heads).
// Rows are strided; the heads of a row lie side by side.
//
// Which kernel: a few queries go over split keys; bf16 of head size 64 or 128 goes to the tensor
// cores (sm_80 and later); all else is fp32 arithmetic. Blocks of keys outside of every row's range
// are skipped. Keys and values of a coded cache are read as they lie by a few queries, and decoded
// into the workspace, some heads at a time, for all else. Backward goes over the scores twice, once
// with keys and once with queries standing still, so that each gradient is summed by one thread in
// a fixed order.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backend/cuda/kernels/cache_codes.h"
#include "core/dtype.h"

namespace supersonic::cuda {

constexpr int kMaxHeadSize = 256;

struct AttentionShape {
  int queries = 0, keys = 0;           // T, S
  int heads = 0, kv_heads = 0, d = 0;  // d: a multiple of 8, at most kMaxHeadSize
  float scale = 1;
  const std::int32_t* lo = nullptr;  // (T), >= 0
  const std::int32_t* hi = nullptr;  // (T), < S
};

struct AttentionForward {
  AttentionShape shape;
  const void* q = nullptr;  // (T, heads, d) f32 or bf16
  const void* k = nullptr;  // (S, kv_heads, d) f32, bf16, f16, or codes, 16-byte aligned
  const void* v = nullptr;  // as k
  void* o = nullptr;        // (T, heads, d), as q
  float* lse = nullptr;     // (T, heads), or null
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, o_stride = 0;  // elements from row to row
  DType type = DType::f32, kv_type = DType::f32;
  CacheCodes codes = CacheCodes::none;  // of k and v, instead of kv_type; their rows are dense
  bool with_lse = true;                 // lse may be asked for: what the workspace is planned by
};

struct AttentionBackward {
  AttentionShape shape;
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const void* o = nullptr;
  const void* d_o = nullptr;
  const float* lse = nullptr;
  void* dq = nullptr;  // null: not wanted
  void* dk = nullptr;
  void* dv = nullptr;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, o_stride = 0, do_stride = 0;
  std::int64_t dq_stride = 0, dk_stride = 0, dv_stride = 0;
  DType type = DType::f32;  // of all: f32 or bf16
};

std::size_t attention_forward_workspace(
    const AttentionForward& a);  // shape and types alone; 256-byte aligned
void attention_forward(const AttentionForward& a, void* workspace, cudaStream_t stream);
std::size_t attention_backward_workspace(const AttentionBackward& a);
void attention_backward(const AttentionBackward& a, void* workspace, cudaStream_t stream);

// The kernels behind them.
int attention_key_splits(const AttentionForward& a);  // 0: not few queries
std::size_t attention_split_workspace(const AttentionForward& a);
void attention_split(const AttentionForward& a, void* workspace, cudaStream_t stream);
// The results of a part of the keys, (splits, T, heads) each: out (d), not divided by the sum of
// its weights; then the largest score in units of log 2 and that sum. merge: o and lse from them.
std::size_t attention_merge_bytes(const AttentionShape& s, int splits);
void attention_merge(const AttentionForward& a, const float* parts, int splits,
                     cudaStream_t stream);
int attention_coded_splits(const AttentionForward& a);  // 0: not few queries of such a kind
void attention_coded(const AttentionForward& a, void* workspace, cudaStream_t stream);
void attention_forward_f32(const AttentionForward& a, cudaStream_t stream);
bool attention_tensor_cores(const AttentionShape& s, DType type, DType kv_type);
void attention_forward_bf16(const AttentionForward& a, cudaStream_t stream);
bool attention_forward_wgmma(const AttentionForward& a,
                             cudaStream_t stream);  // Hopper; false: rows are not aligned, or few
// delta (T, heads): sum over a row of o * d_o.
void attention_delta(const AttentionBackward& a, float* delta, cudaStream_t stream);
void attention_backward_f32(const AttentionBackward& a, const float* delta, cudaStream_t stream);
void attention_backward_bf16(const AttentionBackward& a, const float* delta, cudaStream_t stream);
// As forward's; parts: attention_parts_bytes() of workspace.
bool attention_backward_wgmma(const AttentionBackward& a, const float* delta, float* parts,
                              cudaStream_t stream);
std::size_t attention_parts_bytes(const AttentionBackward& a);

}  // namespace supersonic::cuda
