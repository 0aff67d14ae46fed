// Norm, RoPE, embedding, optimizer and squared norm as the planner sees them, on the plain functions in kernels/.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/adamw.h"
#include "backend/cpu/kernels/embedding.h"
#include "backend/cpu/kernels/rms_norm.h"
#include "backend/cpu/kernels/rope.h"
#include "ops/adamw.h"
#include "ops/embedding.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace supersonic {
namespace {

using cpu::pool_of;

bool f32_or_bf16(DType t) { return t == DType::f32 || t == DType::bf16; }
const char* reject_rows(const Problem& p) {
  for (int i : {0, 1})
    if (!f32_or_bf16(p.in[i].spec.dtype)) return "x and w must be f32 or bf16";
  return nullptr;
}

cpu::EmbeddingGather gather_of(const Problem& p) {
  cpu::EmbeddingGather g;
  const Spec &table = p.in[0].spec, &out = p.out[0].spec;
  g.format = table.format;
  g.n = out.shape[0];
  g.rows = table.shape[0];
  g.d = table.shape[1];
  g.table_type = table.dtype;
  g.out_type = out.dtype;
  return g;
}

cpu::RmsNormBackward backward_of(const Problem& p, const Pointers& ptr) {
  const Spec& x = p.in[0].spec;
  cpu::RmsNormBackward a;
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
  return {.op = &op<RmsNorm>(), .name = "cpu.rms_norm", .reject = reject_rows,
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const Spec& x = p.in[0].spec;
            cpu::RmsNormForward a;
            a.x = ptr.in[0];
            a.w = ptr.in[1];
            a.y = ptr.out[0];
            a.rstd = static_cast<float*>(ptr.out[1]);
            a.rows = x.shape[0];
            a.d = x.shape[1];
            a.eps = p.attr<RmsNorm>().eps;
            a.type = x.dtype;
            a.w_type = p.in[1].spec.dtype;
            cpu::rms_norm_kernels().forward(pool_of(lane), a);
          }};
}

KERNEL(rms_norm_grad) {
  return {.op = &op<RmsNormGrad>(), .name = "cpu.rms_norm_grad",
          .reject = [](const Problem& p) -> const char* {
            return p.out[1].spec.dtype == DType::f32 ? reject_rows(p) : "dw must be f32";
          },
          .workspace = [](const Problem& p) {
            return p.out[1].live ? cpu::rms_norm_backward_workspace(p.in[0].spec.shape[0], p.in[0].spec.shape[1]) : 0;
          },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            cpu::RmsNormBackward a = backward_of(p, ptr);
            a.dw = static_cast<float*>(ptr.out[1]);
            a.workspace = ptr.workspace;
            cpu::rms_norm_kernels().backward(pool_of(lane), a);
          }};
}

KERNEL(rms_norm_grad_add) {
  return {.op = &op<RmsNormGradAdd>(), .name = "cpu.rms_norm_grad_add", .reject = reject_rows,
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            cpu::RmsNormBackward a = backward_of(p, ptr);
            a.base = ptr.in[4];
            cpu::rms_norm_kernels().backward(pool_of(lane), a);
          }};
}

KERNEL(rope) {
  return {.op = &op<Rope>(), .name = "cpu.rope",
          .reject = [](const Problem& p) -> const char* {
            if (p.in[0].spec.shape[2] > cpu::kMaxRotary) return "heads are too wide";
            return f32_or_bf16(p.in[0].spec.dtype) && p.in[2].spec.dtype == DType::f32 ? nullptr : "x must be f32 or bf16";
          },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const Spec& x = p.in[0].spec;
            const auto& attr = p.attr<Rope>();
            cpu::Rope a;
            a.x = ptr.in[0];
            a.y = ptr.out[0];
            a.positions = static_cast<const std::int32_t*>(ptr.in[1]);
            a.inv_freq = static_cast<const float*>(ptr.in[2]);
            a.tokens = x.shape[0];
            a.heads = x.shape[1];
            a.d = x.shape[2];
            a.rotary = 2 * p.in[2].spec.shape[0];
            a.x_stride = a.y_stride = a.heads * a.d;
            a.factor = attr.magnitude;
            a.pairing = attr.interleaved ? cpu::RopePairing::interleaved : cpu::RopePairing::halves;
            a.inverse = attr.inverse != 0;
            a.type = x.dtype;
            cpu::rope_kernels().rope(pool_of(lane), a);
          }};
}

KERNEL(embedding) {
  return {.op = &op<Embedding>(), .name = "cpu.embedding",
          .reject = [](const Problem& p) -> const char* {
            const Spec& t = p.in[0].spec;
            if (!t.format && !f32_or_bf16(t.dtype) && t.dtype != DType::f16) return "the table must be f32, bf16, f16 or quantized";
            if (t.format && t.shape[1] % t.format->block) return "a row must be whole blocks";
            return f32_or_bf16(p.out[0].spec.dtype) ? nullptr : "the result must be f32 or bf16";
          },
          .workspace = [](const Problem& p) { return cpu::embedding_gather_workspace(gather_of(p), p.threads); },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            cpu::EmbeddingGather g = gather_of(p);
            g.ids = static_cast<const std::int32_t*>(ptr.in[1]);
            g.table = ptr.in[0];
            if (g.format) g.planes = *ptr.planes[0];
            g.out = ptr.out[0];
            g.workspace = ptr.workspace;
            cpu::embedding_kernels().gather(pool_of(lane), g);
          }};
}

namespace {

// target (V, D) f32 += rows of dy; first: index of ids among the inputs.
void scatter(const Problem& p, const Pointers& ptr, int first, void* target, std::int64_t rows, Lane& lane) {
  cpu::EmbeddingScatter s;
  s.ids = static_cast<const std::int32_t*>(ptr.in[first]);
  s.dy = ptr.in[first + 1];
  s.dtable = static_cast<float*>(target);
  s.n = p.in[first + 1].spec.shape[0];
  s.d = p.in[first + 1].spec.shape[1];
  s.rows = rows;
  s.type = p.in[first + 1].spec.dtype;
  cpu::embedding_kernels().scatter_add(pool_of(lane), s);
}

const char* reject_scatter(const Problem& p, int first) {
  const Spec& target = first ? p.in[0].spec : p.out[0].spec;
  if (target.dtype != DType::f32) return "the gradient of a table must be f32";
  return f32_or_bf16(p.in[first + 1].spec.dtype) ? nullptr : "dy must be f32 or bf16";
}

}  // namespace

KERNEL(embedding_grad) {
  return {.op = &op<EmbeddingGrad>(), .name = "cpu.embedding_grad",
          .reject = [](const Problem& p) { return reject_scatter(p, 0); },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            std::memset(ptr.out[0], 0, bytes_of(p.out[0].spec));
            scatter(p, ptr, 0, ptr.out[0], p.out[0].spec.shape[0], lane);
          }};
}

KERNEL(embedding_grad_accumulate) {
  return {.op = &op<EmbeddingGradAccumulate>(), .name = "cpu.embedding_grad_accumulate",
          .reject = [](const Problem& p) { return reject_scatter(p, 1); },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            scatter(p, ptr, 1, ptr.in[0], p.in[0].spec.shape[0], lane);
          }};
}

KERNEL(sum_squares) {
  return {.op = &op<SumSquares>(), .name = "cpu.sum_squares",
          .reject = [](const Problem& p) -> const char* { return p.in[0].spec.dtype == DType::f32 ? nullptr : "x must be f32"; },
          .workspace = [](const Problem& p) {
            const cpu::GradientSpan span{nullptr, p.in[0].spec.numel()};
            return cpu::gradient_norm_workspace(&span, 1);
          },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const cpu::GradientSpan span{static_cast<const float*>(ptr.in[0]), p.in[0].spec.numel()};
            float norm = 0;
            cpu::GradientNorm g;
            g.spans = &span;
            g.count = 1;
            g.norm = &norm;
            g.workspace = ptr.workspace;
            cpu::adamw_kernels().gradient_norm(pool_of(lane), g);
            *static_cast<float*>(ptr.out[0]) = norm * norm;
          }};
}

namespace {

// hyper = {lr, step, max_norm, -}: what the host writes before each step.
template <class A>
cpu::AdamWHyper hyper_of(const A& a, const void* hyper, const void* squares, float& scale) {
  const auto* h = static_cast<const float*>(hyper);
  const float norm = std::sqrt(*static_cast<const float*>(squares));
  scale = h[2] > 0 ? std::min(1.0f, h[2] / (norm + 1e-6f)) : 1.0f;
  return {h[0], a.beta1, a.beta2, a.eps, a.weight_decay, static_cast<std::int64_t>(h[1]), &scale, a.seed};
}

cpu::AdamWParameters parameters_of(const Problem& p, const Pointers& ptr) {
  return p.in[0].spec.dtype == DType::bf16 ? cpu::AdamWParameters(static_cast<bf16*>(ptr.in[0])) : cpu::AdamWParameters(static_cast<float*>(ptr.in[0]));
}

}  // namespace

KERNEL(adamw) {
  return {.op = &op<AdamW>(), .name = "cpu.adamw",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            float scale;
            const auto hyper = hyper_of(p.attr<AdamW>(), ptr.in[4], ptr.in[5], scale);
            const cpu::AdamW a{parameters_of(p, ptr), static_cast<const float*>(ptr.in[3]),
                               static_cast<float*>(ptr.in[1]), static_cast<float*>(ptr.in[2]), p.in[0].spec.numel()};
            cpu::adamw_kernels().step(pool_of(lane), a, hyper);
          }};
}

KERNEL(adamw_8bit) {
  return {.op = &op<AdamW8bit>(), .name = "cpu.adamw_8bit",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            float scale;
            const auto hyper = hyper_of(p.attr<AdamW8bit>(), ptr.in[6], ptr.in[7], scale);
            const cpu::AdamW8bit a{parameters_of(p, ptr), static_cast<const float*>(ptr.in[5]),
                                   static_cast<std::uint8_t*>(ptr.in[1]), static_cast<std::uint8_t*>(ptr.in[2]),
                                   static_cast<float*>(ptr.in[3]), static_cast<float*>(ptr.in[4]), p.in[0].spec.numel()};
            cpu::adamw_kernels().step_8bit(pool_of(lane), a, hyper);
          }};
}

}  // namespace supersonic
