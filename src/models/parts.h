// The tensors of a model, one after another in the order of a file: the one place that says which
// there are. Loading, exporting, moving to a device and counting all go through it.
//
//   for_each_part(model, [&](const PartInfo& info, auto& part) { … });   // part: StorageRef,
//   nn::Linear or nn::Experts
#pragma once
#include <fmt/core.h>

#include "io/architecture.h"
#include "models/model.h"

namespace supersonic::models {

enum class PartKind { matrix, norm, vector, linear, experts };

struct PartInfo {
  PartKind kind;
  io::Role role = {};    // of a layer's part
  std::string hf, gguf;  // names of the module in both worlds; experts: with * for the number in hf
  Shape shape;           // of the weight; experts: (experts * out, in)
  std::int64_t heads = 0;   // whose rows rotary embedding pairs; 0: rows have one order
  bool adapted = false;     // an adapter may change it
  bool sensitive = false;   // stays out of int8 over many rows
  std::int64_t layer = -1;  // of a layer's part
};

// The module of expert n, of a name with *.
inline std::string expert_name(const std::string& pattern, std::int64_t n) {
  const std::size_t at = pattern.find('*');
  return pattern.substr(0, at) + std::to_string(n) + pattern.substr(at + 1);
}

template <class M, class F>
class PartWalk {
 public:
  PartWalk(M& model, F& f) : m_(model), c_(model.config), a_(io::architecture_of(c_)), f_(f) {}

  void run() {
    const std::int64_t d = c_.hidden_size;
    f_(PartInfo{PartKind::matrix, {}, "model.embed_tokens", "token_embd", Shape{c_.vocab_size, d}},
       m_.embedding);
    for (std::size_t i = 0; i < m_.layers.size(); ++i)
      layer(static_cast<std::int64_t>(i), m_.layers[i]);
    f_(PartInfo{PartKind::norm, {}, "model.norm", "output_norm", Shape{d}}, m_.final_norm);
    f_(PartInfo{PartKind::matrix, {}, "lm_head", "output", Shape{c_.vocab_size, d}}, m_.head);
  }

 private:
  template <class Part>
  void part(PartKind kind, io::Role role, const Shape& shape, Part& p, std::int64_t heads = 0,
            bool sensitive = false) {
    const io::RoleName& n = a_.name_of(role);
    PartInfo info{kind,
                  role,
                  fmt::format("model.layers.{}.{}", i_, n.hf),
                  fmt::format("blk.{}.{}", i_, n.gguf),
                  shape,
                  heads};
    info.adapted = kind == PartKind::linear && role != io::Role::router;
    info.sensitive = sensitive;
    info.layer = i_;
    f_(info, p);
  }

  template <class L>
  void layer(std::int64_t i, L& l) {
    using io::Role;
    i_ = i;
    const std::int64_t d = c_.hidden_size;
    const bool before = c_.norms != io::NormPlace::after, after = c_.norms != io::NormPlace::before;
    if (before) part(PartKind::norm, Role::attention_norm, Shape{d}, l.attention_norm);
    attention(l);
    if (after) part(PartKind::norm, Role::attention_post_norm, Shape{d}, l.attention_post_norm);
    if (before) part(PartKind::norm, Role::mlp_norm, Shape{d}, l.mlp_norm);
    c_.has_experts(i) ? experts(l) : mlp(l);
    if (after) part(PartKind::norm, Role::mlp_post_norm, Shape{d}, l.mlp_post_norm);
  }

  // Keys, values and the down projection are sensitive: over a prompt in int8 they cost most of the
  // perplexity and little of the time. A gated activation has values far beyond their neighbours,
  // and every later token reads the keys and values.
  template <class L>
  void attention(L& l) {
    using io::Role;
    const std::int64_t d = c_.hidden_size, heads = c_.num_attention_heads,
                       groups = c_.num_key_value_heads;
    const std::int64_t q = heads * c_.head_dim, kv = groups * c_.head_dim;
    const auto linear = [&](Role role, std::int64_t out, std::int64_t in, auto& x,
                            std::int64_t turned, bool sensitive) {
      part(PartKind::linear, role, Shape{out, in}, x, turned, sensitive);
    };
    if (c_.fused) {
      linear(Role::qkv, q + 2 * kv, d, l.qkv, 0, true);
    } else {
      linear(Role::q, q, d, l.q, heads, false);
      linear(Role::k, kv, d, l.k, groups, true);
      linear(Role::v, kv, d, l.v, 0, true);
    }
    if (c_.qk_norm != io::QkNorm::none) {
      const bool all = c_.qk_norm == io::QkNorm::projection;
      part(PartKind::norm, Role::q_norm, Shape{all ? q : c_.head_dim}, l.q_norm);
      part(PartKind::norm, Role::k_norm, Shape{all ? kv : c_.head_dim}, l.k_norm);
    }
    if (c_.attention_sinks) part(PartKind::vector, Role::sinks, Shape{heads}, l.sinks);
    linear(Role::o, d, q, l.o, 0, false);
  }

  template <class L>
  void mlp(L& l) {
    using io::Role;
    const std::int64_t d = c_.hidden_size, f = c_.intermediate_size;
    if (c_.fused) {
      part(PartKind::linear, Role::gate_up, Shape{2 * f, d}, l.gate_up);
    } else {
      part(PartKind::linear, Role::gate, Shape{f, d}, l.gate);
      part(PartKind::linear, Role::up, Shape{f, d}, l.up);
    }
    part(PartKind::linear, Role::down, Shape{d, f}, l.down, 0, true);
  }

  template <class L>
  void experts(L& l) {
    using io::Role;
    const std::int64_t d = c_.hidden_size, e = c_.experts.count, f = c_.experts.width;
    part(PartKind::linear, Role::router, Shape{e, d}, l.router, 0, true);
    part(PartKind::experts, Role::expert_gate, Shape{e * f, d}, l.expert_gate);
    part(PartKind::experts, Role::expert_up, Shape{e * f, d}, l.expert_up);
    part(PartKind::experts, Role::expert_down, Shape{e * d, f}, l.expert_down, 0, true);
  }

  M& m_;
  const io::ModelConfig& c_;
  const io::Architecture& a_;
  F& f_;
  std::int64_t i_ = 0;
};

template <class M, class F>
void for_each_part(M& model, F&& f) {
  PartWalk<M, F>(model, f).run();
}

}  // namespace supersonic::models
