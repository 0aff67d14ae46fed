// The angle of a rotary embedding.
#pragma once
#include <cuda_runtime_api.h>

namespace supersonic::cuda {

// position · inv_freq, less the nearest multiple of 2 pi: within [-pi, pi].
__device__ inline float reduced_angle(double position, float inv_freq) {
  const double angle = position * static_cast<double>(inv_freq),
               turns = rint(angle * 0.15915494309189535);
  return static_cast<float>(
      fma(-turns, 0x1.1a62633145c07p-52, fma(-turns, 0x1.921fb54442d18p+2, angle)));
}

}  // namespace supersonic::cuda
