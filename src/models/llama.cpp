#include "models/llama.h"

#include <cmath>

#include "core/backend.h"
#include "core/tape.h"
#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/gemm.h"
#include "ops/kv_append.h"
#include "ops/map/transcendental.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace supersonic::models {
namespace {

struct CacheArgs {
  const KvCache* cache = nullptr;
  Tensor at;
  std::int64_t context = 0;
};

// Appends to the layer's cache and reads back its first rows.
Tensor cached(const StorageRef& storage, const Tensor& fresh, const CacheArgs& c) {
  kv_append(from_storage(storage), fresh, c.at);
  return slice(from_storage(storage), 0, 0, c.context);
}

Tensor attend(nn::Recorder& r, const Model& m, int i, const Tensor& x, const Inputs& in, const CacheArgs& c) {
  const auto& config = m.config;
  const Layer& l = m.layers[i];
  const std::int64_t t = x.dim(0), d = config.head_dim;
  const Tensor inv_freq = from_storage(m.inv_freq);
  auto heads = [&](const nn::Linear& w, std::int64_t count) { return reshape(nn::linear(r, w, x), {t, count, d}); };
  auto turned = [&](const Tensor& y) { return rope(y, in.positions, inv_freq, m.interleaved_rope, m.rope_magnitude); };
  const Tensor q = turned(heads(l.q, config.num_attention_heads));
  Tensor k = turned(heads(l.k, config.num_key_value_heads)), v = heads(l.v, config.num_key_value_heads);
  if (c.cache) {
    k = cached(c.cache->k[i], k, c);
    v = cached(c.cache->v[i], v, c);
  }
  const Tensor& lo = config.slides(i) ? in.window_lo : in.lo;
  const Tensor o = attention(q, k, v, lo, in.hi, 1.0f / std::sqrt(static_cast<float>(d)));
  return nn::linear(r, l.o, reshape(o, {t, config.num_attention_heads * d}));
}

Tensor mlp(nn::Recorder& r, const Layer& l, const Tensor& x) {
  return nn::linear(r, l.down, swiglu(nn::linear(r, l.gate, x), nn::linear(r, l.up, x)));
}

Tensor forward(nn::Recorder& r, const Model& m, const Inputs& in, const CacheArgs& c) {
  const float eps = static_cast<float>(m.config.rms_norm_eps);
  Tensor x = embedding(from_storage(m.embedding), in.ids, r.activation);
  for (int i = 0; i < static_cast<int>(m.layers.size()); ++i) {
    Region region;
    const Layer& l = m.layers[i];
    x = add(x, attend(r, m, i, rms_norm(x, from_storage(l.attention_norm), eps), in, c));
    x = add(x, mlp(r, l, rms_norm(x, from_storage(l.mlp_norm), eps)));
  }
  return rms_norm(x, from_storage(m.final_norm), eps);
}

}  // namespace

KvCache make_kv_cache(const Model& model, std::int64_t capacity, DType dtype, Backend& backend) {
  const Spec spec{{capacity, model.config.num_key_value_heads, model.config.head_dim}, dtype, nullptr};
  KvCache cache;
  cache.capacity = capacity;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    cache.k.push_back(backend.storage(spec, "k cache"));
    cache.v.push_back(backend.storage(spec, "v cache"));
  }
  return cache;
}

Tensor hidden(nn::Recorder& r, const Model& model, const Inputs& in) { return forward(r, model, in, {}); }

Tensor hidden(nn::Recorder& r, const Model& model, const Inputs& in, const KvCache& cache, const Tensor& at,
              std::int64_t context) {
  return forward(r, model, in, {&cache, at, context});
}

Tensor logits(const Model& model, const Tensor& x) { return linear(x, from_storage(model.head), DType::f32); }

}  // namespace supersonic::models
