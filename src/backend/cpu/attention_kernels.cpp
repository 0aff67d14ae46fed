// Attention and its backward as the planner sees them, on kernels/attention.h.
#include "backend/cpu/kernels/attention.h"

#include "backend/cpu/cache_kernels.h"
#include "backend/cpu/cpu_backend.h"
#include "ops/attention.h"

namespace supersonic {
namespace {

using cpu::pool_of;

cpu::AttentionShape shape_of(const Problem& p, const Pointers* ptr, float scale, float cap = 0) {
  const Shape &q = p.in[0].spec.shape, &k = p.in[1].spec.shape;
  cpu::AttentionShape s;
  s.queries = q[0];
  s.keys = k[0];
  s.heads = q[1];
  s.kv_heads = k[1];
  s.d = q[2];
  s.scale = scale;
  s.cap = cap;
  if (ptr) {
    s.lo = static_cast<const std::int32_t*>(ptr->in[3]);
    s.hi = static_cast<const std::int32_t*>(ptr->in[4]);
  }
  return s;
}

const char* reject_shape(const Problem& p) {
  const Spec& q = p.in[0].spec;
  if (q.shape[2] % 8 || q.shape[2] > cpu::kMaxHeadDim) return "the head size must be a multiple of 8, at most 256";
  if (q.dtype != DType::f32 && q.dtype != DType::bf16) return "q must be f32 or bf16";
  return nullptr;
}

// Null where the kernel reads such keys and values.
const char* reject_cache(const Spec& k, const Spec& v) {
  if (k.dtype != v.dtype || k.format != v.format) return "k and v must have one type";
  if (k.format)
    return cpu::cache_codes(k) != cpu::CacheCodes::none ? nullptr
                                                        : "k and v must be numbers, fp8, or q8_0 with heads of whole blocks";
  return k.dtype == DType::f32 || k.dtype == DType::bf16 || k.dtype == DType::f16 ? nullptr : "k and v must be f32, bf16 or f16";
}

}  // namespace

KERNEL(attention) {
  return {.op = &op<Attention>(), .name = "cpu.attention",
          .reject = [](const Problem& p) -> const char* {
            if (p.in.size() > 5 && p.in[5].spec.dtype != DType::f32) return "sinks must be f32";
            if (const char* why = reject_cache(p.in[1].spec, p.in[2].spec)) return why;
            return reject_shape(p);
          },
          .workspace = [](const Problem& p) { return cpu::attention_forward_workspace(shape_of(p, nullptr, 1), p.threads); },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            cpu::AttentionForward a;
            a.shape = shape_of(p, &ptr, p.attr<Attention>().softmax_scale, p.attr<Attention>().cap);
            if (p.in.size() > 5) a.shape.sinks = static_cast<const float*>(ptr.in[5]);
            a.q = ptr.in[0];
            a.k = ptr.in[1];
            a.v = ptr.in[2];
            a.o = ptr.out[0];
            a.lse = static_cast<float*>(ptr.out[1]);
            a.workspace = ptr.workspace;
            a.q_stride = a.o_stride = a.shape.heads * a.shape.d;
            a.k_stride = a.v_stride = a.shape.kv_heads * a.shape.d;
            a.type = p.in[0].spec.dtype;
            a.kv_type = p.in[1].spec.dtype;
            a.kv_codes = cpu::cache_codes(p.in[1].spec);
            a.rounded = p.compute != Compute::fp32;
            cpu::attention_kernels().forward(pool_of(lane), a);
          },
          .always = 1};
}

KERNEL(attention_grad) {
  return {.op = &op<AttentionGrad>(), .name = "cpu.attention_grad",
          .reject = [](const Problem& p) -> const char* {
            for (int i : {1, 2, 5, 7})
              if (p.in[i].spec.dtype != p.in[0].spec.dtype) return "q, k, v, o and do must have one dtype";
            return reject_shape(p);
          },
          .workspace = [](const Problem& p) { return cpu::attention_backward_workspace(shape_of(p, nullptr, 1), p.threads); },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            cpu::AttentionBackward a;
            a.shape = shape_of(p, &ptr, p.attr<AttentionGrad>().softmax_scale, p.attr<AttentionGrad>().cap);  // sinks are in lse
            a.q = ptr.in[0];
            a.k = ptr.in[1];
            a.v = ptr.in[2];
            a.o = ptr.in[5];
            a.lse = static_cast<const float*>(ptr.in[6]);
            a.d_o = ptr.in[7];
            a.dq = ptr.out[0];
            a.dk = ptr.out[1];
            a.dv = ptr.out[2];
            a.workspace = ptr.workspace;
            a.q_stride = a.o_stride = a.do_stride = a.dq_stride = a.shape.heads * a.shape.d;
            a.k_stride = a.v_stride = a.dk_stride = a.dv_stride = a.shape.kv_heads * a.shape.d;
            a.type = p.in[0].spec.dtype;
            cpu::attention_kernels().backward(pool_of(lane), a);
          }};
}

}  // namespace supersonic
