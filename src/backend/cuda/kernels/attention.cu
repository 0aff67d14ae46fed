// Which attention kernel takes a call, and what it needs in the workspace.
#include "backend/cuda/kernels/attention.h"

#include "backend/cuda/kernels/cache_rows.h"

namespace supersonic::cuda {
namespace {

// What decoded heads of a cache may take, where they are more than one: eight heads of 128 at
// 32,768 keys and a chunk.
constexpr std::size_t kPanelBytes = std::size_t{160} << 20;

std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

std::size_t delta_bytes(const AttentionShape& s) {
  return aligned(static_cast<std::size_t>(s.queries) * static_cast<std::size_t>(s.heads) * 4);
}

// Keys, or values, of n heads as numbers.
std::size_t panel_bytes(const AttentionForward& a, int n) {
  return aligned(static_cast<std::size_t>(a.shape.keys) * static_cast<std::size_t>(n * a.shape.d) *
                 size_of(a.type));
}

// The first n heads of a coded cache, decoded, and the queries that see them.
AttentionForward decoded(const AttentionForward& a, int n) {
  AttentionForward part = a;
  part.shape.kv_heads = n, part.shape.heads = a.shape.heads / a.shape.kv_heads * n;
  part.k_stride = part.v_stride = std::int64_t{n} * a.shape.d;
  part.codes = CacheCodes::none, part.kv_type = a.type;
  return part;
}

// An equal share of the heads at a time; all where lse is wanted, whose rows are the whole's.
int heads_at_once(const AttentionForward& a) {
  int n = a.shape.kv_heads;
  if (a.with_lse) return n;
  while (n > 1 && (a.shape.kv_heads % n || 2 * panel_bytes(a, n) > kPanelBytes)) --n;
  return n;
}

void attention_decoded(const AttentionForward& a, void* workspace, cudaStream_t stream) {
  const int n = heads_at_once(a), share = a.shape.heads / a.shape.kv_heads;
  auto* k = static_cast<char*>(workspace);
  char *v = k + panel_bytes(a, n), *rest = v + panel_bytes(a, n);
  for (int head = 0; head < a.shape.kv_heads; head += n) {
    AttentionForward part = decoded(a, n);
    const std::size_t at = static_cast<std::size_t>(head * share * a.shape.d) * size_of(a.type);
    part.q = static_cast<const char*>(a.q) + at, part.o = static_cast<char*>(a.o) + at;
    part.k = k, part.v = v;
    decode_cache_rows(
        {a.codes, a.k, a.v, k, v, a.type, a.shape.keys, std::int64_t{a.shape.kv_heads} * a.shape.d,
         std::int64_t{head} * a.shape.d, std::int64_t{n} * a.shape.d},
        stream);
    attention_forward(part, rest, stream);
  }
}

}  // namespace

std::size_t attention_forward_workspace(const AttentionForward& a) {
  if (a.codes == CacheCodes::none)
    return attention_key_splits(a) ? attention_split_workspace(a) : 0;
  if (const int splits = attention_coded_splits(a)) return attention_merge_bytes(a.shape, splits);
  const int n = heads_at_once(a);
  return 2 * panel_bytes(a, n) + attention_forward_workspace(decoded(a, n));
}

void attention_forward(const AttentionForward& a, void* workspace, cudaStream_t stream) {
  if (a.shape.queries == 0) return;
  if (a.codes != CacheCodes::none)
    return attention_coded_splits(a) ? attention_coded(a, workspace, stream)
                                     : attention_decoded(a, workspace, stream);
  if (attention_key_splits(a)) return attention_split(a, workspace, stream);
  if (attention_tensor_cores(a.shape, a.type, a.kv_type)) {
    if (!attention_forward_wgmma(a, stream)) attention_forward_bf16(a, stream);
    return;
  }
  attention_forward_f32(a, stream);
}

std::size_t attention_backward_workspace(const AttentionBackward& a) {
  return delta_bytes(a.shape) + attention_parts_bytes(a);
}

void attention_backward(const AttentionBackward& a, void* workspace, cudaStream_t stream) {
  auto* delta = static_cast<float*>(workspace);
  auto* parts = reinterpret_cast<float*>(static_cast<char*>(workspace) + delta_bytes(a.shape));
  if (a.shape.queries > 0) attention_delta(a, delta, stream);
  if (!attention_tensor_cores(a.shape, a.type, a.type))
    return attention_backward_f32(a, delta, stream);
  if (!attention_backward_wgmma(a, delta, parts, stream)) attention_backward_bf16(a, delta, stream);
}

}  // namespace supersonic::cuda
