// Attention and its backward as the planner sees them, on kernels/attention.h.
#include "backend/cuda/kernels/attention.h"

#include "backend/cuda/cuda_backend.h"
#include "core/error.h"
#include "ops/attention.h"

namespace supersonic::cuda {
namespace {

AttentionShape shape_of(const Problem& p, const Pointers* ptr, float scale) {
  const Shape &q = p.in[0].spec.shape, &k = p.in[1].spec.shape;
  AttentionShape s;
  s.queries = static_cast<int>(q[0]);
  s.keys = static_cast<int>(k[0]);
  s.heads = static_cast<int>(q[1]);
  s.kv_heads = static_cast<int>(k[1]);
  s.d = static_cast<int>(q[2]);
  s.scale = scale;
  if (ptr) {
    s.lo = static_cast<const std::int32_t*>(ptr->in[3]);
    s.hi = static_cast<const std::int32_t*>(ptr->in[4]);
  }
  return s;
}

const char* reject_shape(const Problem& p) {
  const Spec &q = p.in[0].spec, &k = p.in[1].spec;
  if (q.shape[2] % 8 || q.shape[2] > kMaxHeadSize)
    return "the head size must be a multiple of 8, at most 256";
  if (q.dtype != DType::f32 && q.dtype != DType::bf16) return "q must be f32 or bf16";
  if (q.shape[0] > 1 << 20 || k.shape[0] > 1 << 30 || q.shape[1] > 65535)
    return "too many queries, keys or heads for one launch";
  return nullptr;
}

// Null where the kernels read such keys and values.
const char* reject_cache(const Spec& k, const Spec& v) {
  if (k.dtype != v.dtype || k.format != v.format) return "k and v must have one type";
  if (k.format)
    return cache_codes(k.format, k.shape[-1]) != CacheCodes::none
               ? nullptr
               : "k and v must be numbers, fp8, or q8_0 with heads of whole blocks";
  return k.dtype == DType::f32 || k.dtype == DType::bf16 || k.dtype == DType::f16
             ? nullptr
             : "k and v must be f32, bf16 or f16";
}

AttentionForward forward_call(const Problem& p, const Pointers* ptr) {
  AttentionForward a;
  a.shape = shape_of(p, ptr, p.attr<Attention>().softmax_scale);
  a.q_stride = a.o_stride = std::int64_t{a.shape.heads} * a.shape.d;
  a.k_stride = a.v_stride = std::int64_t{a.shape.kv_heads} * a.shape.d;
  a.type = p.in[0].spec.dtype;
  a.kv_type = p.in[1].spec.dtype;
  a.codes = cache_codes(p.in[1].spec.format, a.shape.d);
  a.with_lse = p.out[1].live;
  if (!ptr) return a;
  a.q = ptr->in[0];
  a.k = ptr->in[1];
  a.v = ptr->in[2];
  for (const void* codes : {a.k, a.v})
    CHECK(a.codes == CacheCodes::none || reinterpret_cast<std::uintptr_t>(codes) % 16 == 0,
          "attention: a coded cache lies at {}, not at a multiple of 16 bytes", codes);
  a.o = ptr->out[0];
  a.lse = static_cast<float*>(ptr->out[1]);
  return a;
}

AttentionBackward backward_call(const Problem& p, const Pointers* ptr) {
  AttentionBackward a;
  a.shape = shape_of(p, ptr, p.attr<AttentionGrad>().softmax_scale);
  a.q_stride = a.o_stride = a.do_stride = a.dq_stride = std::int64_t{a.shape.heads} * a.shape.d;
  a.k_stride = a.v_stride = a.dk_stride = a.dv_stride = std::int64_t{a.shape.kv_heads} * a.shape.d;
  a.type = p.in[0].spec.dtype;
  if (!ptr) return a;
  a.q = ptr->in[0];
  a.k = ptr->in[1];
  a.v = ptr->in[2];
  a.o = ptr->in[5];
  a.lse = static_cast<const float*>(ptr->in[6]);
  a.d_o = ptr->in[7];
  a.dq = ptr->out[0];
  a.dk = ptr->out[1];
  a.dv = ptr->out[2];
  return a;
}

}  // namespace

KERNEL(attention) {
  return {
      .op = &op<Attention>(),
      .name = "cuda.attention",
      .reject = [](const Problem& p) -> const char* {
        if (p.attr<Attention>().cap != 0) return "scores are capped";
        if (p.in.size() > 5) return "heads have sinks";
        if (const char* why = reject_cache(p.in[1].spec, p.in[2].spec)) return why;
        return reject_shape(p);
      },
      .workspace =
          [](const Problem& p) { return attention_forward_workspace(forward_call(p, nullptr)); },
      .launch =
          [](const Problem& p, const Pointers& ptr, Lane& lane) {
            attention_forward(forward_call(p, &ptr), ptr.workspace, stream_of(lane));
          },
      .always = 1};
}

KERNEL(attention_grad) {
  return {
      .op = &op<AttentionGrad>(),
      .name = "cuda.attention_grad",
      .reject = [](const Problem& p) -> const char* {
        if (p.attr<AttentionGrad>().cap != 0) return "scores are capped";
        for (int i : {1, 2, 5, 7})
          if (p.in[i].spec.dtype != p.in[0].spec.dtype)
            return "q, k, v, o and do must have one dtype";
        if (p.in[0].spec.shape[2] > 128 && device_limits().shared_bytes < 80 << 10)
          return "head sizes above 128 need more shared memory than this device has";
        return reject_shape(p);
      },
      .workspace =
          [](const Problem& p) { return attention_backward_workspace(backward_call(p, nullptr)); },
      .launch =
          [](const Problem& p, const Pointers& ptr, Lane& lane) {
            attention_backward(backward_call(p, &ptr), ptr.workspace, stream_of(lane));
          }};
}

}  // namespace supersonic::cuda
