// The same linear layer of all experts of a mixture: their matrices one below the other, so that a
// GGUF file's stacked tensor is read in place. An adapter has matrices of its own for each expert;
// gate and up, which read the same rows, share A and so one slot, as in transformers, where they
// are one parameter.
#pragma once
#include <string>

#include "nn/linear.h"
#include "ops/mixture.h"

namespace supersonic::nn {

struct Experts {
  std::string name;   // as Hugging Face names expert n's module, n being *:
                      // "model.layers.0.mlp.experts.*.up_proj"
  StorageRef weight;  // (experts * out, in)
  StorageRef bias;    // (experts, out) f32, or empty
  int lora = -1;      // slot in the LoraSet, or -1
  int part = 0;       // which of the slot's parts is this layer's
};

// The adapter's narrow product of the rows, which all layers of one slot read: scale x A^T, x
// (rows, in) sorted by expert -> (rows, rank). Empty without an adapter.
Tensor adapter_rows(Recorder& r, const Experts& layer, const Tensor& x, const Groups& g);
// x (rows, in) -> (rows, out): x W^T + down B^T [+ bias], each row by its expert's matrices. down:
// adapter_rows() of x, which comes first in the record for the reason that linear() has.
Tensor expert_linear(Recorder& r, const Experts& layer, const Tensor& x, const Tensor& down,
                     const Groups& g, bool sensitive = false);

}  // namespace supersonic::nn
