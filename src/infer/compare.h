// How far two models are apart on a fixed text, in fp32: what an export looks at before it gives a
// file its name.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/executor.h"
#include "models/model.h"

namespace supersonic::infer {

struct LogitDifference {
  double relative_error =
      0;                // norm of the difference over the norm of the reference, all positions
  double kl = 0;        // mean over positions of KL(reference || other), nats
  double same_top = 0;  // part of the positions, 0 … 1, where both have the same first choice
};

// Ids of a fixed text by the model's own tokenizer, at most `limit`, those that the model has an
// embedding for.
std::vector<std::int32_t> probe_ids(const models::Model& model, std::int64_t limit = 64);
// (ids, vocab) row-major, fp32 arithmetic; on a backend with memory of its own if the weights fit
// there, else on the CPU.
std::vector<float> prompt_logits(const models::Model& model, const nn::LoraSet* lora,
                                 std::span<const std::int32_t> ids,
                                 Backend& backend = cpu_backend());
// Both (positions, vocab). infer/divergence.h measures each position.
LogitDifference difference(std::span<const float> reference, std::span<const float> other,
                           std::int64_t vocab);

}  // namespace supersonic::infer
