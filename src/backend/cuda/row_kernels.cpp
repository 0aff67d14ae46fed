// Norm, RoPE, embedding, dequantization, optimizer and squared norm as the planner sees them, on
// the launchers in kernels/.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/adamw.h"
#include "backend/cuda/kernels/decode.h"
#include "backend/cuda/kernels/device.h"
#include "backend/cuda/kernels/embedding_grad.h"
#include "backend/cuda/kernels/kv_step.h"
#include "backend/cuda/kernels/rms_norm.h"
#include "backend/cuda/kernels/rope.h"
#include "ops/adamw.h"
#include "ops/dequantize.h"
#include "ops/embedding.h"
#include "ops/kv_step.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace supersonic::cuda {
namespace {

bool f32_or_bf16(DType t) { return t == DType::f32 || t == DType::bf16; }
const char* reject_rows(const Problem& p) {
  for (int i : {0, 1})
    if (!f32_or_bf16(p.in[i].spec.dtype)) return "x and w must be f32 or bf16";
  return nullptr;
}

RowReader reader_of(const Problem& p, const Pointers& ptr) {
  RowReader r;
  const Spec &table = p.in[0].spec, &out = p.out[0].spec;
  r.format = table.format;
  r.table = ptr.in[0];
  if (r.format) r.planes = *ptr.planes[0];
  r.table_type = table.dtype;
  r.out = ptr.out[0];
  r.out_type = out.dtype;
  r.d = out.shape[-1];  // a cache has three dimensions
  r.rows = r.d ? out.numel() / r.d : 0;
  r.table_rows = table.shape[0];
  return r;
}

AdamWInputs inputs_of(const Pointers& ptr, int gradient) {
  return {static_cast<const float*>(ptr.in[gradient]),
          static_cast<const float*>(ptr.in[gradient + 1]),
          static_cast<const float*>(ptr.in[gradient + 2])};
}
// Null where kv_step writes such a cache.
const char* reject_cache(const Spec& cache) {
  if (!cache.format)
    return f32_or_bf16(cache.dtype) || cache.dtype == DType::f16
               ? nullptr
               : "caches must be f32, bf16 or f16";
  return cache_codes(cache.format, cache.shape[-1]) != CacheCodes::none &&
                 cache.shape[-1] <= kMostCodedHead
             ? nullptr
             : "a coded cache is fp8, or q8_0 with heads of whole blocks";
}

template <class A>
AdamWRates rates_of(const A& a) {
  return {a.beta1, a.beta2, a.eps, a.weight_decay, a.seed};
}

RmsNormBackward backward_of(const Problem& p, const Pointers& ptr) {
  const Spec& x = p.in[0].spec;
  RmsNormBackward a;
  a.x = ptr.in[0];
  a.w = ptr.in[1];
  a.rstd = static_cast<const float*>(ptr.in[2]);
  a.dy = ptr.in[3];
  a.dx = ptr.out[0];
  a.rows = x.shape[0];
  a.d = x.shape[1];
  a.type = x.dtype;
  a.w_type = p.in[1].spec.dtype;
  return a;
}

}  // namespace

KERNEL(rms_norm) {
  return {.op = &op<RmsNorm>(),
          .name = "cuda.rms_norm",
          .reject = reject_rows,
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const Spec& x = p.in[0].spec;
            RmsNormForward a;
            a.x = ptr.in[0];
            a.w = ptr.in[1];
            a.y = ptr.out[0];
            a.rstd = static_cast<float*>(ptr.out[1]);
            a.rows = x.shape[0];
            a.d = x.shape[1];
            a.eps = p.attr<RmsNorm>().eps;
            a.type = x.dtype;
            a.w_type = p.in[1].spec.dtype;
            rms_norm_forward(a, stream_of(lane));
          }};
}

KERNEL(rms_norm_grad) {
  return {.op = &op<RmsNormGrad>(),
          .name = "cuda.rms_norm_grad",
          .reject = [](const Problem& p) -> const char* {
            return p.out[1].spec.dtype == DType::f32 ? reject_rows(p) : "dw must be f32";
          },
          .workspace =
              [](const Problem& p) {
                return p.out[1].live
                           ? rms_norm_grad_workspace(p.in[0].spec.shape[0], p.in[0].spec.shape[1])
                           : 0;
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                RmsNormBackward a = backward_of(p, ptr);
                a.dw = static_cast<float*>(ptr.out[1]);
                a.workspace = static_cast<float*>(ptr.workspace);
                rms_norm_backward(a, stream_of(lane));
              }};
}

KERNEL(rms_norm_grad_add) {
  return {.op = &op<RmsNormGradAdd>(),
          .name = "cuda.rms_norm_grad_add",
          .reject = reject_rows,
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            RmsNormBackward a = backward_of(p, ptr);
            a.base = ptr.in[4];
            rms_norm_backward(a, stream_of(lane));
          }};
}

KERNEL(rope) {
  return {.op = &op<Rope>(),
          .name = "cuda.rope",
          .reject = [](const Problem& p) -> const char* {
            if (p.in[0].spec.shape[2] > kMostRotary) return "heads are too wide";
            if (2 * p.in[2].spec.shape[0] != p.in[0].spec.shape[2])
              return "all of a head must turn";
            return f32_or_bf16(p.in[0].spec.dtype) && p.in[2].spec.dtype == DType::f32
                       ? nullptr
                       : "x must be f32 or bf16";
          },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                const Spec& x = p.in[0].spec;
                const auto& attr = p.attr<Rope>();
                Rotation a;
                a.x = ptr.in[0];
                a.y = ptr.out[0];
                a.positions = static_cast<const std::int32_t*>(ptr.in[1]);
                a.inv_freq = static_cast<const float*>(ptr.in[2]);
                a.tokens = x.shape[0];
                a.heads = x.shape[1];
                a.d = x.shape[2];
                a.factor = attr.magnitude;
                a.interleaved = attr.interleaved != 0;
                a.inverse = attr.inverse != 0;
                a.type = x.dtype;
                rotate(a, stream_of(lane));
              }};
}

KERNEL(kv_step) {
  return {
      .op = &op<KvStep>(),
      .name = "cuda.kv_step",
      .reject = [](const Problem& p) -> const char* {
        constexpr std::int64_t kMostTokens = 16;  // beyond, the rotation's sines are worth sharing
        const Spec& q = p.in[2].spec;
        if (q.shape[0] > kMostTokens) return "many tokens go step by step";
        if (!f32_or_bf16(q.dtype) || p.in[3].spec.dtype != q.dtype || p.in[4].spec.dtype != q.dtype)
          return "q, k and v must be f32 or bf16, all the same";
        for (int i : {0, 1})
          if (const char* why = reject_cache(p.in[i].spec)) return why;
        return p.in[6].spec.dtype == DType::f32 ? nullptr : "inv_freq must be f32";
      },
      .launch =
          [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const Shape &q = p.in[2].spec.shape, &k = p.in[3].spec.shape;
            const Rope& rope = p.attr<KvStep>().turn;
            KvStepCall a{};
            a.k_cache = ptr.in[0], a.v_cache = ptr.in[1];
            a.q = ptr.in[2], a.k = ptr.in[3], a.v = ptr.in[4], a.y = ptr.out[0];
            a.positions = static_cast<const std::int32_t*>(ptr.in[5]);
            a.inv_freq = static_cast<const float*>(ptr.in[6]);
            a.at = static_cast<const std::int32_t*>(ptr.in[7]);
            a.capacity = p.in[0].spec.shape[0];
            a.tokens = static_cast<int>(q[0]), a.heads = static_cast<int>(q[1]);
            a.groups = static_cast<int>(k[1]), a.d = static_cast<int>(q[2]);
            a.pairs = static_cast<int>(p.in[6].spec.shape[0]);
            a.factor = rope.magnitude, a.interleaved = rope.interleaved != 0;
            a.type = p.in[2].spec.dtype;
            a.k_type = p.in[0].spec.dtype, a.v_type = p.in[1].spec.dtype;
            a.k_codes = cache_codes(p.in[0].spec.format, q[2]);
            a.v_codes = cache_codes(p.in[1].spec.format, q[2]);
            kv_step(a, faults_of(lane), stream_of(lane));
          }};
}

KERNEL(embedding) {
  return {.op = &op<Embedding>(),
          .name = "cuda.embedding",
          .reject = [](const Problem& p) -> const char* {
            const Spec& t = p.in[0].spec;
            if (t.format && !can_decode(*t.format)) return "no decoder for this format";
            if (!t.format && !f32_or_bf16(t.dtype) && t.dtype != DType::f16)
              return "the table must be f32, bf16, f16 or quantized";
            return f32_or_bf16(p.out[0].spec.dtype) ? nullptr : "the result must be f32 or bf16";
          },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                RowReader r = reader_of(p, ptr);
                r.ids = static_cast<const std::int32_t*>(ptr.in[1]);
                read_rows(r, faults_of(lane), stream_of(lane));
              }};
}

namespace {

// The gradient of a table; first: index of ids among the inputs.
EmbeddingGradCall scatter_of(const Problem& p, const Pointers& ptr, int first) {
  const Spec& dy = p.in[first + 1].spec;
  EmbeddingGradCall c;
  c.ids = static_cast<const std::int32_t*>(ptr.in[first]);
  c.dy = ptr.in[first + 1];
  c.type = dy.dtype;
  c.tokens = dy.shape[0], c.d = dy.shape[1];
  c.table = static_cast<float*>(first ? ptr.in[0] : ptr.out[0]);
  c.rows = (first ? p.in[0] : p.out[0]).spec.shape[0];
  return c;
}

template <int first>
Kernel embedding_grad_kernel(const Op* op, const char* name) {
  return {.op = op,
          .name = name,
          .reject = [](const Problem& p) -> const char* {
            if ((first ? p.in[0] : p.out[0]).spec.dtype != DType::f32)
              return "the gradient of a table must be f32";
            return f32_or_bf16(p.in[first + 1].spec.dtype) ? nullptr : "dy must be f32 or bf16";
          },
          .workspace =
              [](const Problem& p) {
                return embedding_grad_workspace(p.in[first + 1].spec.shape[0]);
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                const EmbeddingGradCall c = scatter_of(p, ptr, first);
                if (!first)
                  check(cudaMemsetAsync(c.table, 0, bytes_of(p.out[0].spec), stream_of(lane)),
                        "cudaMemsetAsync");
                embedding_grad(c, ptr.workspace, stream_of(lane));
              }};
}

}  // namespace

KERNEL(embedding_grad) {
  return embedding_grad_kernel<0>(&op<EmbeddingGrad>(), "cuda.embedding_grad");
}
KERNEL(embedding_grad_accumulate) {
  return embedding_grad_kernel<1>(&op<EmbeddingGradAccumulate>(), "cuda.embedding_grad_accumulate");
}

KERNEL(dequantize) {
  return {
      .op = &op<Dequantize>(),
      .name = "cuda.dequantize",
      .reject = [](const Problem& p) -> const char* {
        return can_decode(*p.in[0].spec.format) ? nullptr : "no decoder for this format";
      },
      .launch = [](const Problem& p, const Pointers& ptr,
                   Lane& lane) { read_rows(reader_of(p, ptr), faults_of(lane), stream_of(lane)); }};
}

KERNEL(sum_squares) {
  return {.op = &op<SumSquares>(),
          .name = "cuda.sum_squares",
          .reject = [](const Problem& p) -> const char* {
            return p.in[0].spec.dtype == DType::f32 ? nullptr : "x must be f32";
          },
          .workspace = [](const Problem& p) { return sum_squares_workspace(p.in[0].spec.numel()); },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                sum_squares(static_cast<const float*>(ptr.in[0]), p.in[0].spec.numel(),
                            static_cast<float*>(ptr.out[0]), ptr.workspace, stream_of(lane));
              }};
}

KERNEL(adamw) {
  return {.op = &op<AdamW>(),
          .name = "cuda.adamw",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const AdamWState s{ptr.in[0], p.in[0].spec.dtype, static_cast<float*>(ptr.in[1]),
                               static_cast<float*>(ptr.in[2])};
            adamw(s, inputs_of(ptr, 3), rates_of(p.attr<AdamW>()), p.in[0].spec.numel(),
                  stream_of(lane));
          }};
}

KERNEL(adamw_8bit) {
  return {.op = &op<AdamW8bit>(),
          .name = "cuda.adamw_8bit",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const AdamW8bitState s{ptr.in[0], p.in[0].spec.dtype,
                                   static_cast<std::uint8_t*>(ptr.in[1]),
                                   static_cast<std::uint8_t*>(ptr.in[2]),
                                   static_cast<float*>(ptr.in[3]), static_cast<float*>(ptr.in[4])};
            adamw_8bit(s, inputs_of(ptr, 5), rates_of(p.attr<AdamW8bit>()), p.in[0].spec.numel(),
                       stream_of(lane));
          }};
}

}  // namespace supersonic::cuda
