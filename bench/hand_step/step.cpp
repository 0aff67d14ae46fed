#include "hand_step/step.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/adamw.h"
#include "backend/cpu/kernels/array.h"
#include "backend/cpu/kernels/rms_norm.h"
#include "backend/cpu/kernels/rope.h"
#include "backend/cpu/kernels/softmax_xent.h"
#include "hand_step/elementwise.h"

namespace supersonic::bench {
namespace {

constexpr std::int64_t kChunk = 256;   // rows of logits that exist at a time
constexpr std::int64_t kWords = 1024;  // of the vocabulary, summed in one run of fp32 additions

StorageRef floats(std::int64_t n, const char* name) {
  return Storage::make({Shape{n}, DType::f32, nullptr}, name);
}

cpu::MatrixRef matrix(const StorageRef& s) {
  cpu::MatrixRef m;
  m.data = s->planes.data[0];
  m.dtype = s->spec.dtype;
  m.format = s->spec.format;
  if (m.format) m.planes = s->planes;
  m.rows = s->spec.shape[0];
  m.cols = m.ld = s->spec.shape[1];
  return m;
}

}  // namespace

HandStep::HandStep(const models::Model& model, const nn::LoraSet& lora, cpu::Pool& pool,
                   std::int64_t tokens, Compute compute)
    : model_(model),
      pool_(pool),
      T(tokens),
      D(model.config.hidden_size),
      F(model.config.intermediate_size),
      Q(model.config.num_attention_heads * model.config.head_dim),
      G(model.config.num_key_value_heads * model.config.head_dim),
      V(model.config.vocab_size),
      compute_(compute),
      type_(compute == Compute::bf16 ? DType::bf16 : DType::f32) {
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
      layer[w] = {matrix(all[w]->weight), s.a, s.b, s.in, s.out};
    }
  }
  values_ = floats(lora.size, "hand values");
  std::copy_n(lora.values->as<float>(), lora.size, values_->as<float>());
  gradients_ = floats(lora.size, "hand gradients");
  m_ = floats(lora.size, "hand m");
  v_ = floats(lora.size, "hand v");
  lay_out();
}

// --- memory
// ---------------------------------------------------------------------------------------------------------------

void HandStep::lay_out() {
  const std::size_t e = size_of(type_), layers = linears_.size();
  kept_.resize(layers);
  arena_ = cpu::host_arena();
  for (const bool measure : {true, false}) {
    if (!measure) arena_->grow(bytes_);
    Bytes base = static_cast<Bytes>(arena_->base());
    std::size_t at = 0;
    auto take = [&](std::size_t bytes) {
      const std::size_t here = at;
      at += (bytes + 63) / 64 * 64;
      return measure ? nullptr : base + here;
    };
    auto take_floats = [&](std::int64_t n) {
      return reinterpret_cast<float*>(take(n * sizeof(float)));
    };
    for (Kept& k : kept_) {
      for (Bytes* p : {&k.x, &k.mid}) *p = take(T * D * e);
      for (Bytes* p : {&k.q, &k.o}) *p = take(T * Q * e);
      for (Bytes* p : {&k.k, &k.v}) *p = take(T * G * e);
      for (Bytes* p : {&k.gate, &k.up}) *p = take(T * F * e);
      for (Bytes& t : k.t) t = take(T * r * e);
      k.lse = take_floats(T * model_.config.num_attention_heads);
    }
    for (Bytes* p : {&last_, &norm_, &d_}) *p = take(T * D * e);
    for (Bytes& dt : dt_) dt = take(T * r * e);
    rstd_ = take_floats(T);
    const std::size_t shared = at;
    logits_ = take_floats(std::min(kChunk, T) * V);
    dx_ = take_floats(std::min(kChunk, T) * D);
    loss_ = take_floats(std::min(kChunk, T));
    head_work_ = take(head_workspace());
    const std::size_t head_end = at;
    at = shared;
    act_ = take(T * F * e);
    for (Bytes* p : {&d_o_, &dq_}) *p = take(T * Q * e);
    for (Bytes* p : {&dk_, &dv_}) *p = take(T * G * e);
    layer_work_ = take(layer_workspace());
    bytes_ = std::max(head_end, at);
  }
}

std::size_t HandStep::head_workspace() const {
  const std::int64_t rows = std::min(kChunk, T);
  return std::max(workspace_of(logits_product(rows, nullptr), pool_.threads()),
                  workspace_of(dlogits_product(rows, 0), pool_.threads()));
}

std::size_t HandStep::layer_workspace() const {
  const int threads = pool_.threads();
  const auto& layer = linears_[0];
  std::size_t most = std::max(cpu::attention_forward_workspace(attention_shape(nullptr), threads),
                              cpu::attention_backward_workspace(attention_shape(nullptr), threads));
  const cpu::GradientSpan span{nullptr, gradients_->spec.numel()};
  most = std::max({most, cpu::gradient_norm_workspace(&span, 1),
                   cpu::embedding_gather_workspace(embedding(nullptr), threads)});
  for (const Adapted& l : layer)
    for (const Product& p :
         {down_product(l, nullptr, nullptr), out_product(l, nullptr, nullptr, nullptr),
          dt_product(l, nullptr, nullptr), da_product(l, nullptr, nullptr),
          db_product(l, nullptr, nullptr)})
      most = std::max(most, workspace_of(p, threads));
  for (const auto& readers : {std::vector<Which>{kDown}, {kGate, kUp}, {kO}, {kV, kK, kQ}}) {
    Product p = dx_product(layer[readers[0]].in, nullptr);
    for (Which w : readers) add_dx(p, layer[w], nullptr, nullptr);
    most = std::max(most, workspace_of(p, threads));
  }
  return most;
}

// --- products
// -------------------------------------------------------------------------------------------------------------

cpu::MatrixRef HandStep::rows(const void* data, std::int64_t n, std::int64_t cols) const {
  cpu::MatrixRef m;
  m.data = data;
  m.dtype = type_;
  m.rows = n;
  m.cols = m.ld = cols;
  return m;
}

cpu::MatrixRef HandStep::adapter(std::int64_t at, std::int64_t rows, std::int64_t cols) const {
  cpu::MatrixRef m;
  m.data = values_->as<float>() + at;
  m.rows = rows;
  m.cols = m.ld = cols;
  return m;
}

void HandStep::add_term(Product& p, const cpu::MatrixRef& x, bool trans_x, const cpu::MatrixRef& w,
                        bool trans_w) {
  p.terms[p.count++] = {x, trans_x, w, trans_w};
}

HandStep::Product HandStep::down_product(const Adapted& l, const void* x, void* t) const {
  Product p;
  add_term(p, rows(x, T, l.in), false, adapter(l.a, r, l.in), false);
  p.problem = {.m = T,
               .n = r,
               .terms = {},
               .y = t,
               .y_dtype = type_,
               .ldy = r,
               .compute = compute_,
               .alpha = lora_scale_};
  return p;
}

HandStep::Product HandStep::out_product(const Adapted& l, const void* x, const void* t,
                                        void* y) const {
  Product p;
  add_term(p, rows(x, T, l.in), false, l.weight, false);
  add_term(p, rows(t, T, r), false, adapter(l.b, l.out, r), false);
  p.problem = {
      .m = T, .n = l.out, .terms = {}, .y = y, .y_dtype = type_, .ldy = l.out, .compute = compute_};
  return p;
}

HandStep::Product HandStep::dt_product(const Adapted& l, const void* dy, void* dt) const {
  Product p;
  add_term(p, rows(dy, T, l.out), false, adapter(l.b, l.out, r), true);
  p.problem = {.m = T,
               .n = r,
               .terms = {},
               .y = dt,
               .y_dtype = type_,
               .ldy = r,
               .compute = compute_,
               .alpha = lora_scale_};
  return p;
}

HandStep::Product HandStep::da_product(const Adapted& l, const void* dt, const void* x) const {
  Product p;
  add_term(p, rows(dt, T, r), true, rows(x, T, l.in), true);
  p.problem = {.m = r,
               .n = l.in,
               .terms = {},
               .y = gradients_->as<float>() + l.a,
               .ldy = l.in,
               .accumulate = true,
               .compute = compute_};
  return p;
}

HandStep::Product HandStep::db_product(const Adapted& l, const void* dy, const void* t) const {
  Product p;
  add_term(p, rows(dy, T, l.out), true, rows(t, T, r), true);
  p.problem = {.m = l.out,
               .n = r,
               .terms = {},
               .y = gradients_->as<float>() + l.b,
               .ldy = r,
               .accumulate = true,
               .compute = compute_};
  return p;
}

HandStep::Product HandStep::dx_product(std::int64_t in, void* dx) const {
  Product p;
  p.problem = {
      .m = T, .n = in, .terms = {}, .y = dx, .y_dtype = type_, .ldy = in, .compute = compute_};
  return p;
}

void HandStep::add_dx(Product& p, const Adapted& l, const void* dt, const void* dy) const {
  add_term(p, rows(dt, T, r), false, adapter(l.a, r, l.in), true);
  add_term(p, rows(dy, T, l.out), false, l.weight, true);
}

HandStep::Product HandStep::logits_product(std::int64_t n, const void* x) const {
  Product p;
  add_term(p, rows(x, n, D), false, matrix(model_.head), false);
  p.problem = {.m = n, .n = V, .terms = {}, .y = logits_, .ldy = V, .compute = compute_};
  return p;
}

// dx (n, D) [+]= dlogits (n, words) · W[word...] of one block of words.
HandStep::Product HandStep::dlogits_product(std::int64_t n, std::int64_t word) const {
  cpu::MatrixRef w = matrix(model_.head), x;
  const bool whole = w.format && !(w.format->row_blocks && w.format->planes == 1);
  const std::size_t row =
      w.format ? D / w.format->block * static_cast<std::size_t>(w.format->block_bytes)
               : D * size_of(w.dtype);
  w.rows = whole ? V : std::min(kWords, V - word);
  w.data = static_cast<const std::byte*>(w.data) + word * row;
  if (w.format) w.planes.data[0] = w.data;
  x.data = logits_ + word;
  x.rows = n;
  x.cols = w.rows;
  x.ld = V;
  Product p;
  add_term(p, x, false, w, true);
  p.problem = {
      .m = n, .n = D, .terms = {}, .y = dx_, .ldy = D, .accumulate = word > 0, .compute = compute_};
  return p;
}

std::size_t HandStep::workspace_of(Product p, int threads) {
  p.problem.terms = {p.terms.data(), static_cast<std::size_t>(p.count)};
  return cpu::gemm_workspace(p.problem, threads);
}

void HandStep::run(Product p, void* workspace) const {
  p.problem.terms = {p.terms.data(), static_cast<std::size_t>(p.count)};
  cpu::gemm(pool_, p.problem, workspace);
}

// --- pieces
// ---------------------------------------------------------------------------------------------------------------

void HandStep::linear(const Adapted& l, const void* x, Bytes t, void* y) const {
  run(down_product(l, x, t), layer_work_);
  run(out_product(l, x, t, y), layer_work_);
}

void HandStep::norm(const void* x, const StorageRef& w, void* y, float* rstd) const {
  cpu::rms_norm_kernels().forward(pool_, {.x = x,
                                          .w = w->as<void>(),
                                          .y = y,
                                          .rstd = rstd,
                                          .rows = T,
                                          .d = D,
                                          .eps = static_cast<float>(model_.config.rms_norm_eps),
                                          .type = type_,
                                          .w_type = w->spec.dtype});
}

// dx: that of x by dy, the gradient of norm(x), and by base, what goes past the norm. Wants rstd_ of x.
void HandStep::norm_backward(const void* x, const StorageRef& w, const void* dy, const void* base,
                             void* dx) const {
  cpu::rms_norm_kernels().backward(pool_, {.dy = dy,
                                           .x = x,
                                           .w = w->as<void>(),
                                           .rstd = rstd_,
                                           .dx = dx,
                                           .rows = T,
                                           .d = D,
                                           .eps = static_cast<float>(model_.config.rms_norm_eps),
                                           .type = type_,
                                           .w_type = w->spec.dtype,
                                           .base = base});
}

void HandStep::rope(void* x, std::int64_t heads, const Feeds& f, bool inverse) const {
  const std::int64_t d = model_.config.head_dim;
  cpu::rope_kernels().rope(pool_,
                           {.x = x,
                            .y = x,
                            .positions = f.positions,
                            .inv_freq = model_.rope.inv_freq->as<float>(),
                            .tokens = T,
                            .heads = heads,
                            .d = d,
                            .x_stride = heads * d,
                            .y_stride = heads * d,
                            .rotary = d,
                            .factor = model_.rope.magnitude,
                            .pairing = model_.interleaved_rope ? cpu::RopePairing::interleaved
                                                               : cpu::RopePairing::halves,
                            .inverse = inverse,
                            .type = type_});
}

cpu::AttentionShape HandStep::attention_shape(const Feeds* f) const {
  const auto& c = model_.config;
  return {.queries = T,
          .keys = T,
          .heads = c.num_attention_heads,
          .kv_heads = c.num_key_value_heads,
          .d = c.head_dim,
          .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
          .lo = f ? f->lo : nullptr,
          .hi = f ? f->hi : nullptr};
}

cpu::EmbeddingGather HandStep::embedding(const Feeds* f) const {
  const cpu::MatrixRef table = matrix(model_.embedding);
  return {.ids = f ? f->ids : nullptr,
          .table = table.data,
          .format = table.format,
          .planes = table.planes,
          .out = kept_[0].x,
          .workspace = layer_work_,
          .n = T,
          .rows = V,
          .d = D,
          .table_type = table.dtype,
          .out_type = type_};
}

// --- the step
// -------------------------------------------------------------------------------------------------------------

void HandStep::forward_layer(int i, const Feeds& f) {
  const models::Layer& l = model_.layers[i];
  const auto& w = linears_[i];
  const Kept& b = kept_[i];
  Bytes out = i + 1 < static_cast<int>(kept_.size()) ? kept_[i + 1].x : last_;  // (T, D)
  const auto& e = cpu::elementwise_kernels();

  norm(b.x, l.attention_norm, norm_, nullptr);
  linear(w[kQ], norm_, b.t[kQ], b.q);
  linear(w[kK], norm_, b.t[kK], b.k);
  linear(w[kV], norm_, b.t[kV], b.v);
  rope(b.q, model_.config.num_attention_heads, f, false);
  rope(b.k, model_.config.num_key_value_heads, f, false);
  cpu::attention_kernels().forward(pool_, {.shape = attention_shape(&f),
                                           .q = b.q,
                                           .k = b.k,
                                           .v = b.v,
                                           .o = b.o,
                                           .lse = b.lse,
                                           .workspace = layer_work_,
                                           .q_stride = Q,
                                           .k_stride = G,
                                           .v_stride = G,
                                           .o_stride = Q,
                                           .type = type_,
                                           .kv_type = type_});
  linear(w[kO], b.o, b.t[kO], b.mid);
  e.add(pool_, b.x, b.mid, b.mid, type_, T * D);

  norm(b.mid, l.mlp_norm, norm_, nullptr);
  linear(w[kGate], norm_, b.t[kGate], b.gate);
  linear(w[kUp], norm_, b.t[kUp], b.up);
  e.swiglu(pool_, b.gate, b.up, act_, type_, T * F);
  linear(w[kDown], act_, b.t[kDown], out);
  e.add(pool_, b.mid, out, out, type_, T * D);
}

// dt = scale * dy B; A's gradient += dt^T x; B's gradient += dy^T t.
void HandStep::adapter_gradients(const Adapted& l, const void* dy, const void* t, Bytes dt,
                                 const void* x) const {
  run(dt_product(l, dy, dt), layer_work_);
  run(db_product(l, dy, t), layer_work_);
  run(da_product(l, dt, x), layer_work_);
}

// d_, the gradient of the layer's output, becomes that of its input.
void HandStep::backward_layer(int i, const Feeds& f) {
  const models::Layer& l = model_.layers[i];
  const auto& w = linears_[i];
  const Kept& b = kept_[i];
  const auto& e = cpu::elementwise_kernels();

  e.swiglu(pool_, b.gate, b.up, act_, type_, T * F);
  adapter_gradients(w[kDown], d_, b.t[kDown], dt_[0], act_);
  Product p = dx_product(F, act_);
  add_dx(p, w[kDown], dt_[0], d_);
  run(p, layer_work_);
  e.swiglu_backward(pool_, act_, b.gate, b.up, type_, T * F);
  norm(b.mid, l.mlp_norm, norm_, rstd_);
  adapter_gradients(w[kGate], b.gate, b.t[kGate], dt_[0], norm_);
  adapter_gradients(w[kUp], b.up, b.t[kUp], dt_[1], norm_);
  p = dx_product(D, norm_);
  add_dx(p, w[kGate], dt_[0], b.gate);
  add_dx(p, w[kUp], dt_[1], b.up);
  run(p, layer_work_);
  norm_backward(b.mid, l.mlp_norm, norm_, d_, d_);

  adapter_gradients(w[kO], d_, b.t[kO], dt_[0], b.o);
  p = dx_product(Q, d_o_);
  add_dx(p, w[kO], dt_[0], d_);
  run(p, layer_work_);
  cpu::attention_kernels().backward(pool_, {.shape = attention_shape(&f),
                                            .q = b.q,
                                            .k = b.k,
                                            .v = b.v,
                                            .o = b.o,
                                            .d_o = d_o_,
                                            .lse = b.lse,
                                            .dq = dq_,
                                            .dk = dk_,
                                            .dv = dv_,
                                            .workspace = layer_work_,
                                            .q_stride = Q,
                                            .k_stride = G,
                                            .v_stride = G,
                                            .o_stride = Q,
                                            .do_stride = Q,
                                            .dq_stride = Q,
                                            .dk_stride = G,
                                            .dv_stride = G,
                                            .type = type_});
  rope(dq_, model_.config.num_attention_heads, f, true);
  rope(dk_, model_.config.num_key_value_heads, f, true);
  norm(b.x, l.attention_norm, norm_, rstd_);
  adapter_gradients(w[kV], dv_, b.t[kV], dt_[0], norm_);
  adapter_gradients(w[kK], dk_, b.t[kK], dt_[1], norm_);
  adapter_gradients(w[kQ], dq_, b.t[kQ], dt_[2], norm_);
  if (i == 0) return;  // the embedding is frozen
  p = dx_product(D, norm_);
  add_dx(p, w[kV], dt_[0], dv_);
  add_dx(p, w[kK], dt_[1], dk_);
  add_dx(p, w[kQ], dt_[2], dq_);
  run(p, layer_work_);
  norm_backward(b.x, l.attention_norm, norm_, d_, d_);
}

// The head and the loss; leaves the gradient of norm_ in d_.
double HandStep::head(const Feeds& f, float scale) {
  double total = 0;
  const std::size_t row = D * size_of(type_);
  for (std::int64_t at = 0; at < T; at += kChunk) {
    const std::int64_t n = std::min(kChunk, T - at);
    run(logits_product(n, norm_ + at * row), head_work_);
    cpu::softmax_xent_kernels().xent(pool_, {.logits = logits_,
                                             .labels = f.labels + at,
                                             .scale = scale,
                                             .loss = loss_,
                                             .rows = n,
                                             .vocab = V,
                                             .stride = V});
    for (std::int64_t i = 0; i < n; ++i) total += loss_[i];
    for (std::int64_t word = 0; word < V;) {
      const Product p = dlogits_product(n, word);
      run(p, head_work_);
      word += p.terms[0].w.rows;
    }
    cpu::array_kernels().cast(pool_, dx_, DType::f32, d_ + at * row, type_, n * D);
  }
  return total * scale;
}

double HandStep::accumulate(const Feeds& f, float scale) {
  cpu::embedding_kernels().gather(pool_, embedding(&f));
  const int layers = static_cast<int>(kept_.size());
  for (int i = 0; i < layers; ++i) forward_layer(i, f);
  norm(last_, model_.final_norm, norm_, rstd_);
  const double loss = head(f, scale);
  norm_backward(last_, model_.final_norm, d_, nullptr, d_);
  for (int i = layers; i-- > 0;) backward_layer(i, f);
  return loss;
}

double HandStep::step(std::int64_t step, float learning_rate) {
  float norm = 0, clip = 1;
  const cpu::GradientSpan span{gradients_->as<float>(), gradients_->spec.numel()};
  cpu::adamw_kernels().gradient_norm(pool_, {.spans = &span,
                                             .count = 1,
                                             .max_norm = 1,
                                             .norm = &norm,
                                             .scale = &clip,
                                             .workspace = layer_work_});
  cpu::adamw_kernels().step(
      pool_, {values_->as<float>(), span.data, m_->as<float>(), v_->as<float>(), span.n},
      {.lr = learning_rate, .weight_decay = 0.01f, .step = step, .grad_scale = &clip});
  cpu::array_kernels().fill(pool_, gradients_->as<void>(), DType::f32, 0, span.n);
  return norm;
}

}  // namespace supersonic::bench
