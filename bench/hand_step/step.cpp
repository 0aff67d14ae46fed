#include "hand_step/step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/device.h"
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/fill.h"
#include "ops/gemm.h"
#include "ops/linear_xent.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace supersonic::bench {
namespace {

enum Feed { kIds, kPositions, kLo, kHi, kLabels, kScale };  // (T) i32 each; one f32
constexpr int kLoss = 0, kSquares = 1;

Value one_float(const StorageRef& s, std::int64_t at) {
  return {{Shape{1}, DType::f32}, s->as<float>() + at};
}

}  // namespace

HandStep::HandStep(const models::Model& model, const nn::LoraSet& lora, Backend& backend,
                   std::int64_t tokens, Compute compute)
    : model_(model),
      backend_(backend),
      maps_(maps_of(backend)),
      T(tokens),
      D(model.config.hidden_size),
      F(model.config.intermediate_size),
      Q(model.config.num_attention_heads * model.config.head_dim),
      G(model.config.num_key_value_heads * model.config.head_dim),
      type_(compute == Compute::fp32 ? DType::f32 : DType::bf16),
      feeds_(backend, {Shape{kScale * tokens + 1}, DType::i32}, "hand feeds"),
      hyper_(backend, {Shape{4}, DType::f32}, "hand hyper"),
      results_(backend, {Shape{2}, DType::f32}, "hand results"),
      batch_(backend, compute),
      update_(backend, compute) {
  const auto& c = model.config;
  CHECK(!c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.sliding_window,
        "hand_step is written for models without biases and windows");
  r = lora.slots.at(0).rank;
  lora_scale_ = lora.slots[0].scale;
  for (const models::Layer& l : model.layers) {
    const nn::Linear* all[kLinears] = {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down};
    auto& layer = linears_.emplace_back();
    for (int w = 0; w < kLinears; ++w) {
      CHECK(all[w]->lora >= 0, "hand_step adapts every linear, but {} has no adapter",
            all[w]->name);
      const nn::LoraSlot& s = lora.slots[all[w]->lora];
      CHECK(s.rank == r && s.scale == lora_scale_, "hand_step is written for one rank and scale");
      layer[w] = {value_of(all[w]->weight), s.a, s.b, s.in, s.out};
    }
  }
  const Spec flat{Shape{lora.size}, DType::f32};
  values_ = backend.storage(flat, "hand values");
  copy_contents(*values_, *lora.values, backend);
  gradients_ = backend.storage(flat, "hand gradients");
  m_ = backend.storage(flat, "hand m");
  v_ = backend.storage(flat, "hand v");

  kept_.resize(linears_.size());
  arena_ = backend.arena(backend.compute_place());
  record();  // at no addresses: the workspaces become known
  CHECK(no_work_.bytes == 0, "hand_step has no room for the workspace of norms and rotations");
  bytes_ = lay_out(nullptr);
  arena_->grow(bytes_);
  lay_out(static_cast<Bytes>(arena_->base()));
  record();
}

// --- memory ---

std::size_t HandStep::lay_out(Bytes base) {
  constexpr std::size_t kAlign = 256;
  const std::size_t e = size_of(type_);
  std::size_t at = 0;
  auto take = [&](std::size_t bytes) {
    const std::size_t here = at;
    at += (bytes + kAlign - 1) / kAlign * kAlign;
    return base ? base + here : nullptr;
  };
  for (Kept& k : kept_) {
    for (Bytes* p : {&k.x, &k.mid}) *p = take(T * D * e);
    for (Bytes* p : {&k.q, &k.o}) *p = take(T * Q * e);
    for (Bytes* p : {&k.k, &k.v}) *p = take(T * G * e);
    for (Bytes* p : {&k.gate, &k.up}) *p = take(T * F * e);
    for (Bytes& t : k.t) t = take(T * r * e);
    k.lse = take(T * model_.config.num_attention_heads * sizeof(float));
  }
  for (Bytes* p : {&last_, &norm_, &d_}) *p = take(T * D * e);
  for (Bytes& dt : dt_) dt = take(T * r * e);
  rstd_ = take(T * sizeof(float));
  const std::size_t shared = at;
  head_work_.at = take(head_work_.bytes);
  std::size_t end = at;
  at = shared;
  act_ = take(T * F * e);
  mlp_work_.at = take(mlp_work_.bytes);
  end = std::max(end, at);
  at = shared;
  for (Bytes* p : {&d_o_, &dq_}) *p = take(T * Q * e);
  for (Bytes* p : {&dk_, &dv_}) *p = take(T * G * e);
  attention_work_.at = take(attention_work_.bytes);
  end = std::max(end, at);
  at = 0;  // nothing is kept from one step to the next
  update_work_.at = take(update_work_.bytes);
  return std::max(end, at);
}

Value HandStep::heads(Bytes data, std::int64_t width) const {
  const std::int64_t d = model_.config.head_dim;
  return {{Shape{T, width / d, d}, type_}, data};
}

Value HandStep::feed(int which) const {
  return {{Shape{T}, DType::i32}, feeds_.here->as<std::int32_t>() + which * T};
}

// n rows of a matrix that begins at `at` of the adapter's values or gradients.
Value HandStep::adapter(const StorageRef& of, std::int64_t at, std::int64_t n,
                        std::int64_t cols) const {
  return {{Shape{n, cols}, DType::f32}, of->as<float>() + at};
}

// --- products ---

void HandStep::Product::term(const Value& x, bool tall_x, const Value& w, bool tall_w) {
  const std::size_t i = operands.size() / 2;
  trans_x |= static_cast<unsigned>(tall_x) << i;
  trans_w |= static_cast<unsigned>(tall_w) << i;
  operands.push_back(x);
  operands.push_back(w);
}

namespace {

Gemm attributes(DType type, unsigned trans_x, unsigned trans_w, float alpha) {
  return {static_cast<std::int32_t>(type), static_cast<std::uint16_t>(trans_x),
          static_cast<std::uint16_t>(trans_w), 0, alpha};
}

}  // namespace

void HandStep::multiply(const Product& p, const Value& y, Work& work, float alpha) {
  batch_.add(op<Gemm>(), Attrs::of(attributes(y.spec.dtype, p.trans_x, p.trans_w, alpha)),
             p.operands, {y}, work);
}

void HandStep::multiply_add(const Product& p, const Value& target, Work& work) {
  std::vector<Value> in{target};
  in.insert(in.end(), p.operands.begin(), p.operands.end());
  batch_.add(op<GemmAccumulate>(),
             Attrs::of(GemmAccumulate{attributes(DType::f32, p.trans_x, p.trans_w, 1)}), in, {},
             work);
}

void HandStep::linear(const Adapted& l, Bytes x, Bytes t, Bytes y, Work& work) {
  Product down, wide;
  down.term(rows(x, l.in), false, adapter(values_, l.a, r, l.in), false);
  multiply(down, rows(t, r), work, lora_scale_);
  wide.term(rows(x, l.in), false, l.weight, false);
  wide.term(rows(t, r), false, adapter(values_, l.b, l.out, r), false);
  multiply(wide, rows(y, l.out), work);
}

void HandStep::gradient_of_b(const Adapted& l, Bytes dy, Bytes t, Bytes dt, Work& work) {
  Product narrow, db;
  narrow.term(rows(dy, l.out), false, adapter(values_, l.b, l.out, r), true);
  multiply(narrow, rows(dt, r), work, lora_scale_);
  db.term(rows(dy, l.out), true, rows(t, r), true);
  multiply_add(db, adapter(gradients_, l.b, l.out, r), work);
}

void HandStep::gradient_of_a(const Adapted& l, Bytes dt, Bytes x, Work& work) {
  Product da;
  da.term(rows(dt, r), true, rows(x, l.in), true);
  multiply_add(da, adapter(gradients_, l.a, r, l.in), work);
}

void HandStep::add_dx(Product& p, const Adapted& l, Bytes dy, Bytes dt) const {
  p.term(rows(dy, l.out), false, l.weight, true);
  p.term(rows(dt, r), false, adapter(values_, l.a, r, l.in), true);
}

// --- pieces ---

void HandStep::norm(Bytes x, const StorageRef& w, Bytes y, bool with_rstd) {
  Value rstd = floats(rstd_);
  rstd.live = with_rstd;
  batch_.add(op<RmsNorm>(), Attrs::of(RmsNorm{static_cast<float>(model_.config.rms_norm_eps)}),
             {rows(x, D), value_of(w)}, {rows(y, D), rstd}, no_work_);
}

void HandStep::norm_backward(Bytes x, const StorageRef& w, Bytes dy, Bytes base, Bytes dx) {
  const float eps = static_cast<float>(model_.config.rms_norm_eps);
  std::vector<Value> in{rows(x, D), value_of(w), floats(rstd_), rows(dy, D)};
  if (!base) {
    const Value dw{{Shape{D}, DType::f32}, nullptr, nullptr, false};
    return batch_.add(op<RmsNormGrad>(), Attrs::of(RmsNormGrad{eps}), in, {rows(dx, D), dw},
                      no_work_);
  }
  in.push_back(rows(base, D));
  batch_.add(op<RmsNormGradAdd>(), Attrs::of(RmsNormGradAdd{eps}), in, {rows(dx, D)}, no_work_);
}

void HandStep::rope(Bytes x, std::int64_t width, bool inverse) {
  const Rope a{model_.interleaved_rope, inverse, model_.rope.magnitude};
  batch_.add(op<Rope>(), Attrs::of(a),
             {heads(x, width), feed(kPositions), value_of(model_.rope.inv_freq)}, {heads(x, width)},
             no_work_);
}

// --- the step ---

void HandStep::forward_layer(int i) {
  const models::Layer& l = model_.layers[i];
  const auto& w = linears_[i];
  const Kept& b = kept_[i];
  Bytes out = i + 1 < static_cast<int>(kept_.size()) ? kept_[i + 1].x : last_;  // (T, D)
  const float scale = 1.0f / std::sqrt(static_cast<float>(model_.config.head_dim));

  norm(b.x, l.attention_norm, norm_, false);
  linear(w[kQ], norm_, b.t[kQ], b.q, attention_work_);
  linear(w[kK], norm_, b.t[kK], b.k, attention_work_);
  linear(w[kV], norm_, b.t[kV], b.v, attention_work_);
  rope(b.q, Q, false);
  rope(b.k, G, false);
  const Value lse{{Shape{T, model_.config.num_attention_heads}, DType::f32}, b.lse};
  batch_.add(op<Attention>(), Attrs::of(Attention{scale}),
             {heads(b.q, Q), heads(b.k, G), heads(b.v, G), feed(kLo), feed(kHi)},
             {heads(b.o, Q), lse}, attention_work_);
  linear(w[kO], b.o, b.t[kO], b.mid, attention_work_);
  batch_.add(maps_.add, {rows(b.x, D), rows(b.mid, D)}, {rows(b.mid, D)});

  norm(b.mid, l.mlp_norm, norm_, false);
  linear(w[kGate], norm_, b.t[kGate], b.gate, mlp_work_);
  linear(w[kUp], norm_, b.t[kUp], b.up, mlp_work_);
  batch_.add(maps_.swiglu, {rows(b.gate, F), rows(b.up, F)}, {rows(act_, F)});
  linear(w[kDown], act_, b.t[kDown], out, mlp_work_);
  batch_.add(maps_.add, {rows(b.mid, D), rows(out, D)}, {rows(out, D)});
}

// d_, the gradient of the layer's output, becomes that of its input.
void HandStep::backward_layer(int i) {
  const models::Layer& l = model_.layers[i];
  const auto& w = linears_[i];
  const Kept& b = kept_[i];
  const float scale = 1.0f / std::sqrt(static_cast<float>(model_.config.head_dim));

  gradient_of_b(w[kDown], d_, b.t[kDown], dt_[0], mlp_work_);
  Product p;
  add_dx(p, w[kDown], d_, dt_[0]);
  multiply(p, rows(act_, F), mlp_work_);
  batch_.add(maps_.swiglu_backward, {rows(b.gate, F), rows(b.up, F), rows(act_, F)},
             {rows(act_, F), rows(b.gate, F), rows(b.up, F)});
  gradient_of_a(w[kDown], dt_[0], act_, mlp_work_);
  norm(b.mid, l.mlp_norm, norm_, true);
  p = {};
  for (const auto& [which, dy, dt] : {std::tuple{kUp, b.up, dt_[0]}, {kGate, b.gate, dt_[1]}}) {
    gradient_of_b(w[which], dy, b.t[which], dt, mlp_work_);
    gradient_of_a(w[which], dt, norm_, mlp_work_);
    add_dx(p, w[which], dy, dt);
  }
  multiply(p, rows(norm_, D), mlp_work_);
  norm_backward(b.mid, l.mlp_norm, norm_, d_, d_);

  gradient_of_b(w[kO], d_, b.t[kO], dt_[0], attention_work_);
  gradient_of_a(w[kO], dt_[0], b.o, attention_work_);
  p = {};
  add_dx(p, w[kO], d_, dt_[0]);
  multiply(p, rows(d_o_, Q), attention_work_);
  const Value lse{{Shape{T, model_.config.num_attention_heads}, DType::f32}, b.lse};
  batch_.add(op<AttentionGrad>(), Attrs::of(AttentionGrad{scale}),
             {heads(b.q, Q), heads(b.k, G), heads(b.v, G), feed(kLo), feed(kHi), heads(b.o, Q), lse,
              heads(d_o_, Q)},
             {heads(dq_, Q), heads(dk_, G), heads(dv_, G)}, attention_work_);
  rope(dq_, Q, true);
  rope(dk_, G, true);
  norm(b.x, l.attention_norm, norm_, true);
  p = {};
  for (const auto& [which, dy, dt] :
       {std::tuple{kV, dv_, dt_[0]}, {kK, dk_, dt_[1]}, {kQ, dq_, dt_[2]}}) {
    gradient_of_b(w[which], dy, b.t[which], dt, attention_work_);
    gradient_of_a(w[which], dt, norm_, attention_work_);
    add_dx(p, w[which], dy, dt);
  }
  if (i == 0) return;  // the embedding is frozen
  multiply(p, rows(norm_, D), attention_work_);
  norm_backward(b.x, l.attention_norm, norm_, d_, d_);
}

void HandStep::record() {
  const int layers = static_cast<int>(kept_.size());
  batch_.clear();
  batch_.bring(feeds_);
  batch_.add(op<Embedding>(), Attrs::of(Embedding{static_cast<std::int64_t>(type_)}),
             {value_of(model_.embedding), feed(kIds)}, {rows(kept_[0].x, D)}, attention_work_);
  for (int i = 0; i < layers; ++i) forward_layer(i);
  norm(last_, model_.final_norm, norm_, true);
  batch_.add(
      op<LinearXent>(), Attrs::of(LinearXent{}),
      {rows(norm_, D), value_of(model_.head), feed(kLabels), one_float(feeds_.here, kScale * T)},
      {one_float(results_.here, kLoss), rows(d_, D)}, head_work_);
  norm_backward(last_, model_.final_norm, d_, nullptr, d_);
  for (int i = layers; i-- > 0;) backward_layer(i);
  batch_.take_home(results_);

  const Value g = value_of(gradients_), squares = one_float(results_.here, kSquares);
  update_.clear();
  update_.bring(hyper_);
  update_.add(op<SumSquares>(), {}, {g}, {squares}, update_work_);
  update_.add(op<AdamW>(), Attrs::of(AdamW{0.9f, 0.999f, 1e-8f, 0.01f}),
              {value_of(values_), value_of(m_), value_of(v_), g, value_of(hyper_.here), squares},
              {}, update_work_);
  update_.add(op<Fill>(), Attrs::of(Fill{0, static_cast<std::int32_t>(DType::f32), {}}), {}, {g},
              update_work_);
  update_.take_home(results_);
}

double HandStep::accumulate(const Feeds& f, float scale) {
  const std::int32_t* all[kScale] = {f.ids, f.positions, f.lo, f.hi, f.labels};
  auto* host = feeds_.host->as<std::int32_t>();
  for (int i = 0; i < kScale; ++i) std::copy_n(all[i], T, host + i * T);
  std::memcpy(host + kScale * T, &scale, sizeof scale);
  batch_.run();
  return results_.host->as<float>()[kLoss];
}

double HandStep::step(std::int64_t step, float learning_rate) {
  auto* hyper = hyper_.host->as<float>();
  hyper[0] = learning_rate;
  hyper[1] = static_cast<float>(step);
  hyper[2] = 1;
  update_.run();
  return std::sqrt(static_cast<double>(results_.host->as<float>()[kSquares]));
}

}  // namespace supersonic::bench
