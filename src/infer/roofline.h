// What a machine's limits allow: the shortest time in which a model's prefill or decode step could
// run, from its arithmetic and its bytes. A benchmark's figure is a fraction of this.
#pragma once
#include "backend/cpu/kernels/probe.h"
#include "core/compute.h"
#include "models/model.h"
#include "models/tensor_type.h"

namespace supersonic::infer {

// Operations (a multiply-add is two) of a forward pass over one sequence of n tokens, logits for
// `scored` of them.
struct ForwardWork {
  double products = 0;   // with the weights, in the arithmetic of --compute
  double attention = 0;  // scores and mixing, causal; bf16 or fp32
};
ForwardWork forward_work(const models::Model& model, std::int64_t tokens, std::int64_t scored);
double shortest_time(const ForwardWork& work, const cpu::Limits& limits,
                     Compute compute);  // seconds

// Operations of a LoRA step over `rows` sequences of `length` tokens: forward, the gradient of the
// activations (the weights are frozen), the loss over all rows, and the adapter's own products;
// nothing recomputed.
ForwardWork lora_step_work(const models::Model& model, const nn::LoraSet& lora, std::int64_t rows,
                           std::int64_t length);
// The same where all weights are trained: forward, the gradients of activations and of weights, the loss over all rows.
ForwardWork full_step_work(const models::Model& model, std::int64_t rows, std::int64_t length);

// Bytes that one decoded token reads: every weight once, and the keys and values of `context`
// tokens.
double decode_bytes(const models::Model& model, double context, const models::TensorType& kv_type);

}  // namespace supersonic::infer
