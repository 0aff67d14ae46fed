// Choosing a token at the end of a step, as the planner sees it, on kernels/sample.h.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/sample.h"
#include "ops/sample_step.h"

namespace supersonic::cuda {

KERNEL(sample_step) {
  return {.op = &op<SampleStep>(),
          .name = "cuda.sample_step",
          .workspace =
              [](const Problem& p) {
                return static_cast<std::size_t>(p.in[3].spec.numel()) * sizeof(std::uint64_t);
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                SampleCall a{};
                a.step = static_cast<std::int32_t*>(ptr.in[0]);
                a.seen = static_cast<std::uint8_t*>(ptr.in[1]);
                a.chosen = static_cast<std::int32_t*>(ptr.in[2]);
                a.logits = static_cast<const float*>(ptr.in[3]);
                a.settings = static_cast<const std::int32_t*>(ptr.in[4]);
                a.weights = static_cast<std::uint64_t*>(ptr.workspace);
                a.width = static_cast<int>(p.in[3].spec.numel());
                a.slots = static_cast<int>(p.in[2].spec.shape[0]);
                a.window = p.attr<SampleStep>().window;
                sample_step(a, faults_of(lane), stream_of(lane));
              }};
}

}  // namespace supersonic::cuda
