// Float tensors as files hold them, to and from float: f32, f16, bf16 and f64, at any alignment.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "core/dtype.h"

namespace supersonic::io {

// data: whole elements of dtype. Error(failure) when dtype is not a float type.
std::vector<float> to_floats(std::span<const std::byte> data, DType dtype);
std::vector<std::byte> from_floats(std::span<const float> values,
                                   DType dtype);  // rounds to nearest even

}  // namespace supersonic::io
