// The end of a decoded token's step (ops/sample_step.h): one launch that chooses a token and makes
// it the next step's input.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/kernels/fault.h"

namespace supersonic::cuda {

struct SampleCall {
  std::int32_t* step;            // (kStepFeeds)
  std::uint8_t* seen;            // (width)
  std::int32_t* chosen;          // (slots)
  const float* logits;           // (width)
  const std::int32_t* settings;  // (kSamplingWords)
  std::uint64_t* weights;        // (width): workspace
  int width, slots;
  std::int64_t window;
};
void sample_step(const SampleCall& a, FaultSink faults, cudaStream_t stream);

}  // namespace supersonic::cuda
