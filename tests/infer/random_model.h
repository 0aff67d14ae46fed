// A small Llama with random weights, made in memory: what the tests of sessions and scoring run.
#pragma once
#include <cmath>
#include <string>

#include "models/model.h"
#include "support/recipe.h"

namespace supersonic::testing {

inline StorageRef random_storage(const std::string& name, const Shape& shape, float scale,
                                 float offset = 0) {
  StorageRef s = Storage::make({shape, DType::f32, nullptr}, name);
  const auto values = recipe::uniform(name, static_cast<std::size_t>(shape.numel()), scale);
  for (std::int64_t i = 0; i < shape.numel(); ++i) s->as<float>()[i] = offset + values[i];
  return s;
}

// window: of sliding attention in every layer; 0: none. times: how much wider hidden states are
// than 64.
inline models::Model random_model(std::int64_t window = 0, std::int64_t head_dim = 16,
                                  std::int64_t times = 1) {
  models::Model m;
  auto& c = m.config;
  c.hidden_size = 64 * times, c.intermediate_size = 96 * times, c.num_hidden_layers = 2,
  c.num_attention_heads = 4, c.num_key_value_heads = 2;
  c.head_dim = head_dim, c.vocab_size = 101, c.max_position_embeddings = 2048,
  c.sliding_window = window;
  const float sigma = 0.25f / std::sqrt(static_cast<float>(times));
  const auto linear = [sigma](const std::string& name, std::int64_t out, std::int64_t in) {
    nn::Linear l;
    l.name = name;
    l.weight = random_storage(name, Shape{out, in}, sigma);
    return l;
  };
  const std::int64_t d = c.hidden_size, kv = c.num_key_value_heads * c.head_dim,
                     wide = c.num_attention_heads * c.head_dim;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    models::Layer l;
    l.attention_norm = random_storage(p + "input_layernorm", Shape{d}, 0.125f, 1);
    l.mlp_norm = random_storage(p + "post_attention_layernorm", Shape{d}, 0.125f, 1);
    l.q = linear(p + "self_attn.q_proj", wide, d), l.k = linear(p + "self_attn.k_proj", kv, d),
    l.v = linear(p + "self_attn.v_proj", kv, d);
    l.o = linear(p + "self_attn.o_proj", d, wide);
    l.gate = linear(p + "mlp.gate_proj", c.intermediate_size, d),
    l.up = linear(p + "mlp.up_proj", c.intermediate_size, d);
    l.down = linear(p + "mlp.down_proj", d, c.intermediate_size);
    m.layers.push_back(std::move(l));
  }
  m.embedding = random_storage("model.embed_tokens", Shape{c.vocab_size, d}, 1);
  m.head = random_storage("lm_head", Shape{c.vocab_size, d}, sigma);
  m.final_norm = random_storage("model.norm", Shape{d}, 0.125f, 1);
  models::set_rotations(m);
  return m;
}

inline std::vector<std::int32_t> random_ids(std::size_t n, std::int64_t vocabulary) {
  std::vector<std::int32_t> ids(n);
  for (std::size_t i = 0; i < n; ++i)
    ids[i] = static_cast<std::int32_t>(recipe::below(recipe::seed_of("ids"), i, vocabulary));
  return ids;
}

// Norm of the difference over the norm of b.
inline double relative_difference(std::span<const float> a, std::span<const float> b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace supersonic::testing
