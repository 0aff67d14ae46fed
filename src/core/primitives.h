// The three operations that the core itself records: gradients add up, start at one, and are kept apart. Declared here so that
// the street from ops to core stays one-way; src/ops defines them.
#pragma once
#include "core/tensor.h"

namespace supersonic {

Tensor add(const Tensor& a, const Tensor& b, Where where = Where::current());
Tensor fill(const Shape& shape, DType dtype, double value, Where where = Where::current());
Tensor identity(const Tensor& x, Where where = Where::current());

}  // namespace supersonic
