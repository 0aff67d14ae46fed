// Reverse-mode differentiation: a sweep over the tape in descending sequence. It records ordinary nodes.
#pragma once
#include <functional>

#include "core/op.h"

namespace supersonic {

// Gradients of `loss` (one element) with respect to each of `wrt`; an empty tensor where the loss does not depend on it.
Tensors gradients(const Tensor& loss, std::span<const Tensor> wrt, Where where = Where::current());
// The same for any output with its cotangent given. outputs and cotangents pair up.
Tensors gradients(std::span<const Tensor> outputs, std::span<const Tensor> cotangents, std::span<const Tensor> wrt,
                  Where where = Where::current());
// Calls sink(i, part) for each part of the gradient of wrt[i] as soon as it is made, so that none need outlive the call: their sum is
// the gradient. Values that the loss depends on in one place have one part; of those that depend on others of wrt, the sum is one part.
void backward(const Tensor& loss, std::span<const Tensor> wrt, const std::function<void(int, const Tensor&)>& sink,
              Where where = Where::current());
// The gradients of an operation from its definition: the meaning of a backward kernel.
Grads differentiate(const Op& op, const Attrs& attrs, Args in, Args dy, const std::vector<bool>& need);

// True while a gradient sweep records.
bool in_backward();

}  // namespace supersonic
