// The same linear layer of all experts of a mixture: their matrices one below the other, so that a
// GGUF file's stacked tensor is read in place.
#pragma once
#include <string>

#include "core/op.h"

namespace supersonic::nn {

struct Experts {
  std::string name;   // as Hugging Face names expert n's module, n being *:
                      // "model.layers.0.mlp.experts.*.up_proj"
  StorageRef weight;  // (experts * out, in)
  StorageRef bias;    // (experts, out) f32, or empty
};

}  // namespace supersonic::nn
