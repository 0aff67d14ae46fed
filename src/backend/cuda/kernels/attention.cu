// Which attention kernel takes a call, and what it needs in the workspace.
#include "backend/cuda/kernels/attention.h"

namespace supersonic::cuda {
namespace {

std::size_t delta_bytes(const AttentionShape& s) {
  return (static_cast<std::size_t>(s.queries) * static_cast<std::size_t>(s.heads) * 4 + 255) / 256 *
         256;
}

}  // namespace

std::size_t attention_forward_workspace(const AttentionForward& a) {
  return attention_key_splits(a) ? attention_split_workspace(a) : 0;
}

void attention_forward(const AttentionForward& a, void* workspace, cudaStream_t stream) {
  if (a.shape.queries == 0) return;
  if (attention_key_splits(a)) return attention_split(a, workspace, stream);
  if (attention_tensor_cores(a.shape, a.type, a.kv_type)) {
    if (!attention_forward_wgmma(a, stream)) attention_forward_bf16(a, stream);
    return;
  }
  attention_forward_f32(a, stream);
}

std::size_t attention_backward_workspace(const AttentionBackward& a) {
  return delta_bytes(a.shape) + attention_wgmma_bytes(a);
}

void attention_backward(const AttentionBackward& a, void* workspace, cudaStream_t stream) {
  auto* delta = static_cast<float*>(workspace);
  if (attention_backward_wgmma(a, delta, static_cast<char*>(workspace) + delta_bytes(a.shape),
                               stream))
    return;
  if (a.shape.queries > 0) attention_delta(a, delta, stream);
  if (attention_tensor_cores(a.shape, a.type, a.type))
    attention_backward_bf16(a, delta, stream);
  else
    attention_backward_f32(a, delta, stream);
}

}  // namespace supersonic::cuda
