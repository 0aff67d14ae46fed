// The head and the loss as the planner sees them, on kernels/xent.h.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/xent.h"
#include "ops/linear_xent.h"

namespace supersonic::cuda {
namespace {

LinearXentCall call_of(const Problem& p, const Pointers* ptr) {
  auto matrix = [&](int i) {
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
  };
  LinearXentCall c;
  c.x = matrix(0);
  c.w = matrix(1);
  c.format = p.in[1].spec.format;
  c.rows = c.x.rows;
  c.compute = p.compute;
  if (!ptr) return c;
  c.labels = static_cast<const std::int32_t*>(ptr->in[2]);
  c.scale = static_cast<const float*>(ptr->in[3]);
  c.loss = static_cast<float*>(ptr->out[0]);
  c.dx = ptr->out[1];
  return c;
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

}  // namespace supersonic::cuda
