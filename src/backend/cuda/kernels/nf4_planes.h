// The planes of an NF4 matrix (formats/nf4.h).
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "formats/format.h"

namespace supersonic::cuda {

struct Nf4Planes {
  const std::uint8_t* codes;
  const std::uint8_t* scale_codes;  // nested
  const float* scales;              // plain: one for 64 weights; nested: one for 256 of those
  const float* offset;              // nested
};
__host__ __device__ inline Nf4Planes nf4_planes(const Planes& p, bool nested) {
  return {static_cast<const std::uint8_t*>(p.data[0]),
          nested ? static_cast<const std::uint8_t*>(p.data[1]) : nullptr,
          static_cast<const float*>(p.data[nested ? 2 : 1]),
          nested ? static_cast<const float*>(p.data[3]) : nullptr};
}

}  // namespace supersonic::cuda
