// What a GPU could do in a second, from its driver's description, and the times that follow for a
// step or a copy.
#pragma once
#include "core/kernel.h"

namespace supersonic::cuda {

struct Estimates {
  double multiply = 0,
         multiply_f32 = 0;  // floating-point operations a second of products, in bf16 and in fp32
  double memory = 0, link = 0;  // bytes a second, of the device's memory and to host memory
  double seconds(const Problem& p) const;
  double copy_seconds(std::size_t bytes) const;
};
Estimates read_estimates(int device);

}  // namespace supersonic::cuda
