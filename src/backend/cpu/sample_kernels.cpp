// Choosing a token at the end of a step, as the planner sees it: the meaning itself
// (ops/sampling.h).
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "ops/sample_step.h"

namespace supersonic {

KERNEL(sample_step) {
  return {.op = &op<SampleStep>(),
          .name = "cpu.sample_step",
          .workspace =
              [](const Problem& p) {
                return static_cast<std::size_t>(p.in[3].spec.numel()) * sizeof(sampling::Candidate);
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane&) {
                auto* step = static_cast<std::int32_t*>(ptr.in[0]);
                auto* seen = static_cast<std::uint8_t*>(ptr.in[1]);
                Sampling s;
                std::memcpy(&s, ptr.in[4], sizeof s);
                const auto width = static_cast<std::size_t>(p.in[3].spec.numel()),
                           tokens = std::min(width, static_cast<std::size_t>(s.vocabulary));
                const std::int32_t row = step[static_cast<int>(StepFeed::at)];
                const auto token =
                    sampling::choose(s, {static_cast<const float*>(ptr.in[3]), tokens}, seen,
                                     static_cast<std::uint32_t>(row + 1),
                                     {static_cast<sampling::Candidate*>(ptr.workspace), tokens})
                        .token;
                static_cast<std::int32_t*>(ptr.in[2])[row % p.in[2].spec.shape[0]] = token;
                seen[token] = 1;
                set_step(step, token, row + 1, p.attr<SampleStep>().window);
              }};
}

}  // namespace supersonic
