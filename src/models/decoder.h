// The forward pass of every architecture, from its description: recorded, not run.
#pragma once
#include "models/model.h"
#include "models/tensor_type.h"

namespace supersonic::models {

// What varies from run to run. T tokens, flat: sequences lie one after another.
struct Inputs {
  Tensor ids;         // (T) i32
  Tensor positions;   // (T) i32, of each token in its own sequence
  Tensor lo, hi;      // (T) i32: the inclusive range of keys that a token attends
  Tensor window_lo;   // (T) i32: the same for layers with a sliding window; unused without
};

// Keys and values of all layers, (capacity, kv heads, head_dim) each.
struct KvCache {
  std::vector<StorageRef> k, v;
  std::int64_t capacity = 0;
};
// Room for `capacity` tokens in one layer's keys, or its values. Throws Error(usage) where the model's heads or the backend's
// kernels do not go with `type`: a scalar type, or one of cache_formats().
Spec kv_cache_spec(const Model& model, std::int64_t capacity, const TensorType& type, const Backend& backend);
KvCache make_kv_cache(const Model& model, std::int64_t capacity, const TensorType& type, Backend& backend);

// The last layer's normalised output (T, d_model), times the scale of the logits where there is one. With a cache, the new keys and values are written at rows at[0]…, and
// attention reads the first `context` rows.
Tensor hidden(nn::Recorder& r, const Model& model, const Inputs& in);
Tensor hidden(nn::Recorder& r, const Model& model, const Inputs& in, const KvCache& cache, const Tensor& at,
              std::int64_t context);
// The logits (1, vocab) f32 that follow row last[0] of the same tokens.
Tensor next_logits(nn::Recorder& r, const Model& model, const Inputs& in, const KvCache& cache, const Tensor& at,
                   std::int64_t context, const Tensor& last);
// x (n, d_model), of hidden() -> logits (n, vocab) f32
Tensor logits(const Model& model, const Tensor& x);

// The loss of the same logits, Σ over rows with a label (>= 0) of their negative log-likelihood, times scale: (1).
Tensor loss(const Model& model, const Tensor& x, const Tensor& labels, const Tensor& scale);

}  // namespace supersonic::models
