// One forward pass for every architecture: what a layer does follows from the description
// (io/model_config.h), so that a new architecture is a file in models/architectures, and a change
// here is needed for a new idea alone.
#include "models/decoder.h"

#include <algorithm>
#include <cmath>

#include "core/backend.h"
#include "core/tape.h"
#include "ops/attend_step.h"
#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/gemm.h"
#include "ops/kv_append.h"
#include "ops/kv_step.h"
#include "ops/linear_xent.h"
#include "ops/map/transcendental.h"
#include "ops/mixture.h"
#include "ops/projection.h"
#include "ops/reduce.h"
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
Tensor cached(const StorageRef& storage, const CacheArgs& c) {
  return slice(from_storage(storage), 0, 0, c.context);
}
Tensor cached(const StorageRef& storage, const Tensor& fresh, const CacheArgs& c) {
  kv_append(from_storage(storage), fresh, c.at);
  return cached(storage, c);
}

struct Pass {
  nn::Recorder& r;
  const Model& m;
  const Inputs& in;
  const CacheArgs& cache;
  const io::ModelConfig& c = m.config;
  float eps = static_cast<float>(c.rms_norm_eps);
};

Tensor norm(const Pass& p, const StorageRef& w, const Tensor& x) {
  return w ? rms_norm(x, from_storage(w), p.eps) : x;
}

Tensor times(const Tensor& x, double factor) { return factor == 1 ? x : scale(x, factor); }

// The rows that a layer's products read: x, normalised where there is a norm.
struct Rows {
  Tensor x;
  StorageRef norm;
};
Tensor normed(const Pass& p, const Rows& rows) { return norm(p, rows.norm, rows.x); }

// Whether products go as one operation (ops/projection.h): when a token is decoded, and nothing but
// the weights takes part.
bool whole(const Pass& p, std::initializer_list<const nn::Linear*> layers) {
  return p.cache.cache && std::ranges::all_of(layers, [&](const nn::Linear* l) {
           return !l->bias && (l->lora < 0 || !p.r.lora);
         });
}

Tensors projection(const Pass& p, const Rows& rows, std::initializer_list<const nn::Linear*> layers,
                   Projection::Gate gate = Projection::none, const Tensor& residual = {}) {
  Projection a{.matrices = static_cast<std::uint8_t>(layers.size()), .gate = gate, .eps = p.eps};
  Tensors in = {rows.x};
  if (rows.norm) in.push_back(from_storage(rows.norm));
  a.normed = rows.norm ? 1 : 0;
  for (int i = 0; const nn::Linear* l : layers) {
    in.push_back(from_storage(l->weight));
    a.sensitive = static_cast<std::uint16_t>(a.sensitive | l->sensitive << i++);
  }
  if (residual) in.push_back(residual);
  a.added = residual ? 1 : 0;
  return record(op<Projection>(), Attrs::of(a), in, Where::current());
}

// residual + factor * post_norm(x W^T)
Tensor added(const Pass& p, const Tensor& residual, const nn::Linear& layer, const Tensor& x,
             const StorageRef& post_norm) {
  if (!post_norm && p.c.residual_scale == 1 && whole(p, {&layer}))
    return projection(p, {x, {}}, {&layer}, Projection::none, residual)[0];
  return add(residual, times(norm(p, post_norm, nn::linear(p.r, layer, x)), p.c.residual_scale));
}

// (T, heads, head_dim) of a projection's rows, normalised by head or as a whole where the model
// does.
Tensor heads_of(const Pass& p, const Tensor& y, std::int64_t heads, const StorageRef& weight = {}) {
  const std::int64_t t = y.dim(0), d = p.c.head_dim;
  if (p.c.qk_norm == io::QkNorm::head && weight)
    return reshape(norm(p, weight, reshape(y, {t * heads, d})), {t, heads, d});
  return reshape(norm(p, weight, y), {t, heads, d});
}

struct Projected {
  Tensor q, k, v;  // (T, heads, head_dim)
};
Projected project(const Pass& p, const Layer& l, const Rows& rows) {
  const std::int64_t heads = p.c.num_attention_heads, groups = p.c.num_key_value_heads;
  if (!p.c.fused && whole(p, {&l.q, &l.k, &l.v})) {
    const Tensors y = projection(p, rows, {&l.q, &l.k, &l.v});
    return {heads_of(p, y[0], heads, l.q_norm), heads_of(p, y[1], groups, l.k_norm),
            heads_of(p, y[2], groups)};
  }
  const Tensor x = normed(p, rows);
  if (!p.c.fused)
    return {heads_of(p, nn::linear(p.r, l.q, x), heads, l.q_norm),
            heads_of(p, nn::linear(p.r, l.k, x), groups, l.k_norm),
            heads_of(p, nn::linear(p.r, l.v, x), groups)};
  const Tensor y = nn::linear(p.r, l.qkv, x);
  const std::int64_t q = heads * p.c.head_dim, kv = groups * p.c.head_dim;
  return {heads_of(p, slice(y, 1, 0, q), heads, l.q_norm),
          heads_of(p, slice(y, 1, q, q + kv), groups, l.k_norm),
          heads_of(p, slice(y, 1, q + kv, q + 2 * kv), groups)};
}

double softmax_scale(const Pass& p) {
  return p.c.attention_scale > 0 ? p.c.attention_scale
                                 : 1 / std::sqrt(static_cast<double>(p.c.head_dim));
}

// Turns queries and keys, and appends to the layer's cache.
void rotate_and_append(const Pass& p, int i, Projected& y, std::int64_t tokens) {
  const KvCache* cache = p.cache.cache;
  if (p.c.rotates(i)) {
    const Rotation& r = p.m.rotation(i, cache ? cache->capacity : tokens);
    const Tensor inv_freq = from_storage(r.inv_freq);
    if (cache) {
      y.q = record(KvStep{{p.m.interleaved_rope, 0, r.magnitude}},
                   {from_storage(cache->k[i]), from_storage(cache->v[i]), y.q, y.k, y.v,
                    p.in.positions, inv_freq, p.cache.at},
                   Where::current())[0];
      y.k = cached(cache->k[i], p.cache);
      y.v = cached(cache->v[i], p.cache);
      return;
    }
    y.q = rope(y.q, p.in.positions, inv_freq, p.m.interleaved_rope, r.magnitude);
    y.k = rope(y.k, p.in.positions, inv_freq, p.m.interleaved_rope, r.magnitude);
  }
  if (!cache) return;
  y.k = cached(cache->k[i], y.k, p.cache);
  y.v = cached(cache->v[i], y.v, p.cache);
}

// Attention's result before its last projection: (T, heads * head_dim).
Tensor attend(const Pass& p, int i, const Rows& rows) {
  const Layer& l = p.m.layers[i];
  const std::int64_t tokens = rows.x.dim(0);
  const KvCache* cache = p.cache.cache;
  const Tensor& lo = p.c.slides(i) ? p.in.window_lo : p.in.lo;
  const auto scale = static_cast<float>(softmax_scale(p));
  Projected y = project(p, l, rows);
  Tensor o;
  if (tokens == 1 && cache && p.c.rotates(i) && p.c.attention_cap == 0 && !l.sinks) {
    const Rotation& r = p.m.rotation(i, cache->capacity);
    o = record(AttendStep{{p.m.interleaved_rope, 0, r.magnitude}, scale, p.cache.context},
               {from_storage(cache->k[i]), from_storage(cache->v[i]), y.q, y.k, y.v, p.in.positions,
                from_storage(r.inv_freq), p.cache.at, lo, p.in.hi},
               Where::current())[0];
  } else {
    rotate_and_append(p, i, y, tokens);
    o = attention(y.q, y.k, y.v, lo, p.in.hi, scale, static_cast<float>(p.c.attention_cap),
                  l.sinks ? from_storage(l.sinks) : Tensor());
  }
  return reshape(o, {tokens, p.c.num_attention_heads * p.c.head_dim});
}

Tensor gated(const Pass& p, const Tensor& gate, const Tensor& up) {
  switch (p.c.gate) {
    case io::Gate::gelu_tanh:
      return geglu(gate, up);
    case io::Gate::clamped_silu:
      return clamped_swiglu(gate, up, 1.702f, 7.0f);
    default:
      return swiglu(gate, up);
  }
}

// The MLP's result before its last projection: (T, intermediate_size).
Tensor mlp(const Pass& p, const Layer& l, const Rows& rows) {
  if (!p.c.fused && p.c.gate != io::Gate::clamped_silu && whole(p, {&l.gate, &l.up}))
    return projection(
        p, rows, {&l.gate, &l.up},
        p.c.gate == io::Gate::gelu_tanh ? Projection::gelu_tanh : Projection::silu)[0];
  const Tensor x = normed(p, rows);
  if (!p.c.fused) return gated(p, nn::linear(p.r, l.gate, x), nn::linear(p.r, l.up, x));
  const std::int64_t f = p.c.intermediate_size;
  const Tensor y = nn::linear(p.r, l.gate_up, x);
  return gated(p, slice(y, 1, 0, f), slice(y, 1, f, 2 * f));
}

Tensor softmax(const Tensor& x) {  // over the last dimension of (T, n)
  const Tensor e = exp(sub(x, max(x, 1)));
  return div(e, sum(e, 1));
}

// Each token through the experts that its router scores highest (Shazeer et al. 2017).
Tensor mixture(const Pass& p, const Layer& l, const Tensor& x) {
  const io::Experts& e = p.c.experts;
  const Tensor scores = cast(nn::linear(p.r, l.router, x), DType::f32);
  const Chosen chosen = top_k(e.renormalise ? scores : softmax(scores), e.used);
  const Tensor weights = e.renormalise ? softmax(chosen.values) : chosen.values;
  const Groups g = group_rows(chosen.indices, e.count);
  const Tensor rows = dispatch(x, g);
  const Tensor down = nn::adapter_rows(p.r, l.expert_gate, rows, g);
  const Tensor y = gated(p, nn::expert_linear(p.r, l.expert_gate, rows, down, g),
                         nn::expert_linear(p.r, l.expert_up, rows, down, g));
  const Tensor last = nn::adapter_rows(p.r, l.expert_down, y, g);
  return combine(nn::expert_linear(p.r, l.expert_down, y, last, g, true), weights, g);
}

// The last layer's output, not normalised.
Tensor through_layers(const Pass& p) {
  const Model& m = p.m;
  Tensor x =
      times(embedding(from_storage(m.embedding), p.in.ids, p.r.activation), p.c.embedding_scale);
  for (int i = 0; i < static_cast<int>(m.layers.size()); ++i) {
    Region region;
    const Layer& l = m.layers[i];
    x = added(p, x, l.o, attend(p, i, {x, l.attention_norm}), l.attention_post_norm);
    const Rows rows{x, l.mlp_norm};
    if (p.c.has_experts(i)) {
      const Tensor y = norm(p, l.mlp_post_norm, mixture(p, l, normed(p, rows)));
      x = add(x, times(y, p.c.residual_scale));
    } else {
      x = added(p, x, l.down, mlp(p, l, rows), l.mlp_post_norm);
    }
  }
  return x;
}

Tensor finished(const Pass& p, const Tensor& x) {
  return times(norm(p, p.m.final_norm, x), p.c.logit_scale);
}

Tensor forward(nn::Recorder& r, const Model& m, const Inputs& in, const CacheArgs& cache) {
  const Pass p{r, m, in, cache};
  return finished(p, through_layers(p));
}

// scores (n, vocab), capped where the model caps them
Tensor capped(const Model& model, const Tensor& scores) {
  const double cap = model.config.logit_cap;
  return cap > 0 ? scale(tanh(scale(scores, 1 / cap)), cap) : scores;
}

}  // namespace

Spec kv_cache_spec(const Model& model, std::int64_t capacity, const TensorType& type,
                   const Backend& backend) {
  const Spec spec{
      {capacity, model.config.num_key_value_heads, model.config.head_dim}, type.dtype, type.format};
  if (!type.format) return spec;
  if (model.config.head_dim % type.format->block)
    fail(ErrorKind::usage,
         "a KV cache of type {} takes heads whose size is a multiple of {}, and this model's is "
         "{}; choose --kv-type fp8 or bf16",
         type.format->name, type.format->block, model.config.head_dim);
  Problem append;
  append.op = &op<KvAppend>();
  append.in = {{spec, {}},
               {{{1, spec.shape[1], spec.shape[2]}, DType::f32, nullptr}, {}},
               {{{1}, DType::i32, nullptr}, {}}};
  if (std::ranges::none_of(backend.kernels(), [&](const Kernel* k) {
        return k->op == append.op && (!k->reject || !k->reject(append));
      }))
    fail(ErrorKind::usage,
         "the backend '{}' has no kernels for a KV cache of type {}; choose --kv-type bf16, or "
         "--device cpu",
         backend.name(), type.format->name);
  return spec;
}

KvCache make_kv_cache(const Model& model, std::int64_t capacity, const TensorType& type,
                      Backend& backend) {
  const Spec spec = kv_cache_spec(model, capacity, type, backend);
  KvCache cache;
  cache.capacity = capacity;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    cache.k.push_back(backend.storage(spec, "k cache"));
    cache.v.push_back(backend.storage(spec, "v cache"));
  }
  return cache;
}

Tensor hidden(nn::Recorder& r, const Model& model, const Inputs& in) {
  return forward(r, model, in, {});
}

Tensor hidden(nn::Recorder& r, const Model& model, const Inputs& in, const KvCache& cache,
              const Tensor& at, std::int64_t context) {
  return forward(r, model, in, {&cache, at, context});
}

Tensor logits(const Model& model, const Tensor& x) {
  return capped(model, linear(x, from_storage(model.head), DType::f32));
}

Tensor next_logits(nn::Recorder& r, const Model& model, const Inputs& in, const KvCache& cache,
                   const Tensor& at, std::int64_t context, const Tensor& last) {
  const CacheArgs args{&cache, at, context};
  const Pass p{r, model, in, args};
  Tensor x = through_layers(p);
  if (x.dim(0) > 1) x = embedding(x, last, x.dtype());
  if (!model.final_norm || model.config.logit_scale != 1) return logits(model, finished(p, x));
  const Projection head{.matrices = 1, .normed = 1, .wide = 1, .eps = p.eps};
  return capped(model, record(head, {x, from_storage(model.final_norm), from_storage(model.head)},
                              Where::current())[0]);
}

Tensor loss(const Model& model, const Tensor& x, const Tensor& labels, const Tensor& factor) {
  return linear_xent(x, from_storage(model.head), labels, factor,
                     static_cast<float>(model.config.logit_cap));
}

}  // namespace supersonic::models
