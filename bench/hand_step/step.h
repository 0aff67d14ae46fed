// One LoRA training step of the Llama family as a person would write it for a CPU: forward,
// backward, gradients added up, AdamW; straight-line calls of the backend's kernels, every buffer
// laid out by hand in one allocation. No tape, no plan, no fusion. It is what the engine is
// measured against, and the arithmetic is the engine's, in the same order.
//
// The memory story. T tokens, D model width, F MLP width, Q = heads * head size, G = key heads *
// head size, r rank, V words:
//   kept from forward to backward, per layer: x, mid (T, D); q, o (T, Q); k, v (T, G); gate, up (T,
//   F); seven t (T, r);
//     lse (T, heads) fp32. Norms and the MLP's activation are computed again; gate and up are
//     overwritten by their gradients.
//   for the whole step: the last layer's output, a norm, the gradient of the residual stream (T, D)
//   each; three dt (T, r);
//     rstd (T) fp32
//   one region that is in turn the head's (256 rows of logits and their gradient, fp32) and the
//   layers' (act (T, F); d_o, dq (T, Q);
//     dk, dv (T, G)), each with the workspace of its kernels.
#pragma once
#include <array>
#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/kernels/attention.h"
#include "backend/cpu/kernels/embedding.h"
#include "backend/cpu/kernels/gemm.h"
#include "core/backend.h"
#include "models/model.h"

namespace supersonic::bench {

// A micro-batch, (T) each; labels are all trained. hi: the token itself.
struct Feeds {
  const std::int32_t *ids, *positions, *lo, *hi, *labels;
};

class HandStep {
 public:
  // lora: an adapter on all seven linears of each layer, one rank for all; its values are where the
  // step starts.
  HandStep(const models::Model& model, const nn::LoraSet& lora, cpu::Pool& pool,
           std::int64_t tokens, Compute compute);

  double accumulate(const Feeds& feeds,
                    float scale);  // adds the gradients of scale * sum nll, returns that
  double step(std::int64_t step,
              float learning_rate);  // clips at 1, clears the gradients; returns their norm
  std::size_t arena_bytes() const { return bytes_; }  // activations and workspace
  std::span<const float> gradients() const { return gradients_->values<const float>(); }

 private:
  enum Which { kQ, kK, kV, kO, kGate, kUp, kDown, kLinears };
  using Bytes = std::byte*;
  struct Kept {
    Bytes x, mid, q, k, v, o, gate, up;
    float* lse;
    std::array<Bytes, kLinears> t;  // scale * x A^T
  };
  // An adapted linear: its weight and where its A (r, in) and B (out, r) begin.
  struct Adapted {
    cpu::MatrixRef weight;
    std::int64_t a, b, in, out;
  };
  struct Product {
    std::array<cpu::GemmTerm, cpu::kMaxGemmTerms> terms;
    int count = 0;
    cpu::GemmProblem problem;
  };

  void lay_out();
  std::size_t layer_workspace() const;
  std::size_t head_workspace() const;
  void forward_layer(int i, const Feeds& f);
  void backward_layer(int i, const Feeds& f);
  double head(const Feeds& f, float scale);

  // Products. y (T, out) = x W^T + t B^T, with t = scale * x A^T, which is kept.
  Product down_product(const Adapted& l, const void* x, void* t) const;
  Product out_product(const Adapted& l, const void* x, const void* t, void* y) const;
  Product dt_product(const Adapted& l, const void* dy, void* dt) const;  // dt = scale * dy B
  Product da_product(const Adapted& l, const void* dt,
                     const void* x) const;  // A's gradient += dt^T x
  Product db_product(const Adapted& l, const void* dy,
                     const void* t) const;  // B's gradient += dy^T t
  void add_dx(Product& p, const Adapted& l, const void* dt, const void* dy) const;  // + dt A + dy W
  Product dx_product(std::int64_t in, void* dx) const;                              // no term yet
  Product logits_product(std::int64_t rows, const void* x) const;
  Product dlogits_product(std::int64_t rows, std::int64_t word) const;
  cpu::MatrixRef rows(const void* data, std::int64_t n, std::int64_t cols) const;
  cpu::MatrixRef adapter(std::int64_t at, std::int64_t rows, std::int64_t cols) const;
  static void add_term(Product& p, const cpu::MatrixRef& x, bool trans_x, const cpu::MatrixRef& w,
                       bool trans_w);
  static std::size_t workspace_of(Product p, int threads);
  void run(Product p, void* workspace) const;

  void linear(const Adapted& l, const void* x, Bytes t, void* y) const;
  void adapter_gradients(const Adapted& l, const void* dy, const void* t, Bytes dt,
                         const void* x) const;
  void norm(const void* x, const StorageRef& w, void* y, float* rstd) const;
  void norm_backward(const void* x, const StorageRef& w, const void* dy, const void* base,
                     void* dx) const;
  void rope(void* x, std::int64_t heads, const Feeds& f, bool inverse) const;
  cpu::EmbeddingGather embedding(const Feeds* f) const;
  cpu::AttentionShape attention_shape(const Feeds* f) const;

  const models::Model& model_;
  cpu::Pool& pool_;
  const std::int64_t T, D, F, Q, G, V;
  std::int64_t r = 0;
  const Compute compute_;
  const DType type_;
  float lora_scale_ = 1;
  StorageRef values_, gradients_, m_, v_;
  std::vector<std::array<Adapted, kLinears>> linears_;  // of each layer

  std::unique_ptr<Arena> arena_;
  std::size_t bytes_ = 0;
  std::vector<Kept> kept_;
  Bytes last_ = nullptr, norm_ = nullptr, d_ = nullptr;  // (T, D)
  std::array<Bytes, 3> dt_{};                            // (T, r)
  float* rstd_ = nullptr;                                // (T)
  Bytes act_ = nullptr, d_o_ = nullptr, dq_ = nullptr, dk_ = nullptr, dv_ = nullptr,
        layer_work_ = nullptr;
  float *logits_ = nullptr, *dx_ = nullptr, *loss_ = nullptr;  // of one chunk of rows
  Bytes head_work_ = nullptr;
};

}  // namespace supersonic::bench
