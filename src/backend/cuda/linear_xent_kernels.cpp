// The head and the loss as the planner sees them, on kernels/xent.h.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/xent.h"
#include "ops/linear_xent.h"

namespace supersonic::cuda {
namespace {

MatrixRef matrix(const Problem& p, const Pointers* ptr, int i) {
  const Spec& s = p.in[i].spec;
  MatrixRef m;
  m.codec = codec_of(s.dtype, s.format);
  m.rows = s.shape[0];
  m.cols = s.shape[1];
  if (ptr && s.format)
    m.planes = *ptr->planes[i];
  else if (ptr)
    m.planes.data[0] = ptr->in[i];
  return m;
}

LinearXentCall call_of(const Problem& p, const Pointers* ptr) {
  LinearXentCall c;
  c.x = matrix(p, ptr, 0);
  c.w = matrix(p, ptr, 1);
  c.format = p.in[1].spec.format;
  c.rows = c.x.rows;
  c.compute = p.compute;
  if (!ptr) return c;
  c.labels = static_cast<const std::int32_t*>(ptr->in[2]);
  c.scale = static_cast<const float*>(ptr->in[3]);
  c.loss = static_cast<float*>(ptr->out[0]);
  c.dx = ptr->out[1];
  c.lse = static_cast<float*>(ptr->out[2]);
  c.nll = static_cast<float*>(ptr->out[3]);
  return c;
}

// first: index of x among the inputs; 1 where input 0 is the target.
LinearXentWeightCall weight_call_of(const Problem& p, const Pointers* ptr, int first) {
  LinearXentWeightCall c;
  c.x = matrix(p, ptr, first);
  c.w = matrix(p, ptr, first + 1);
  c.rows = c.x.rows;
  c.compute = p.compute;
  if (!ptr) return c;
  c.labels = static_cast<const std::int32_t*>(ptr->in[first + 2]);
  const auto values = [&](int i) { return static_cast<const float*>(ptr->in[first + i]); };
  c.scale = values(3), c.dloss = values(4), c.lse = values(5), c.nll = values(6);
  c.dw = static_cast<float*>(first ? ptr->in[0] : ptr->out[0]);
  return c;
}

const char* reject_weight(const Problem& p, int first, float cap) {
  if (cap != 0) return "logits are capped";
  const Spec &x = p.in[first].spec, &w = p.in[first + 1].spec;
  if (x.dtype != DType::f32 && x.dtype != DType::bf16) return "x must be f32 or bf16";
  if (w.format || codec_of(w.dtype, nullptr) == Codec::none) return "W must be f32, bf16 or f16";
  for (int k = 3; k < 7; ++k)
    if (p.in[first + k].spec.dtype != DType::f32) return "scale, dloss, lse and nll must be f32";
  return (first ? p.in[0] : p.out[0]).spec.dtype == DType::f32 ? nullptr : "dW must be f32";
}

}  // namespace

KERNEL(linear_xent) {
  return {.op = &op<LinearXent>(),
          .name = "cuda.linear_xent",
          .reject = [](const Problem& p) -> const char* {
            if (p.attr<LinearXent>().cap != 0) return "logits are capped";
            const Spec &x = p.in[0].spec, &w = p.in[1].spec;
            if (x.dtype != DType::f32 && x.dtype != DType::bf16) return "x must be f32 or bf16";
            if (codec_of(w.dtype, w.format) == Codec::none)
              return "W must be f32, bf16, f16 or of a format with a decoder here";
            if (p.in[3].spec.dtype != DType::f32) return "scale must be f32";
            return nullptr;
          },
          .workspace = [](const Problem& p) { return linear_xent_workspace(call_of(p, nullptr)); },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                LinearXentCall c = call_of(p, &ptr);
                c.faults = faults_of(lane);
                linear_xent(c, ptr.workspace, stream_of(lane));
              }};
}

KERNEL(linear_xent_weight_grad) {
  return {.op = &op<LinearXentWeightGrad>(),
          .name = "cuda.linear_xent_weight_grad",
          .reject =
              [](const Problem& p) {
                return reject_weight(p, 0, p.attr<LinearXentWeightGrad>().cap);
              },
          .workspace =
              [](const Problem& p) {
                return linear_xent_weight_workspace(weight_call_of(p, nullptr, 0));
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                LinearXentWeightCall c = weight_call_of(p, &ptr, 0);
                c.faults = faults_of(lane);
                check(cudaMemsetAsync(c.dw, 0, bytes_of(p.out[0].spec), stream_of(lane)),
                      "cudaMemsetAsync");
                linear_xent_weight(c, ptr.workspace, stream_of(lane));
              }};
}

KERNEL(linear_xent_weight_grad_accumulate) {
  return {.op = &op<LinearXentWeightGradAccumulate>(),
          .name = "cuda.linear_xent_weight_grad_accumulate",
          .reject =
              [](const Problem& p) {
                return reject_weight(p, 1, p.attr<LinearXentWeightGradAccumulate>().grad.cap);
              },
          .workspace =
              [](const Problem& p) {
                return linear_xent_weight_workspace(weight_call_of(p, nullptr, 1));
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                LinearXentWeightCall c = weight_call_of(p, &ptr, 1);
                c.faults = faults_of(lane);
                linear_xent_weight(c, ptr.workspace, stream_of(lane));
              }};
}

}  // namespace supersonic::cuda
