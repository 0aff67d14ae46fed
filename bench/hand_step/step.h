// One LoRA training step of the Llama family as a person would write it: forward, backward,
// gradients added up, AdamW; calls of a backend's kernels in an order made by hand, every buffer
// laid out by hand in one allocation. No tape, no plan, no fusion of what is recorded. It is what
// the engine is measured against, on the CPU and on a GPU, and the arithmetic is the engine's, in
// the same order.
//
// The memory story. T tokens, D model width, F MLP width, Q = heads * head size, G = key heads *
// head size, r rank:
//   kept from forward to backward, per layer: x, mid (T, D); q, o (T, Q); k, v (T, G); gate, up (T,
//   F); seven t (T, r); lse (T, heads) fp32. Norms and the MLP's activation are computed again;
//   gate and up are overwritten by their gradients.
//   for the whole step: the last layer's output, a norm, the gradient of the residual stream (T, D)
//   each; three dt (T, r); rstd (T) fp32
//   one region that is in turn the head's (the workspace of its kernel), an MLP's (act (T, F)) and
//   attention's (d_o, dq (T, Q); dk, dv (T, G)), the latter two with the workspace of their
//   kernels.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "hand_step/maps.h"
#include "models/model.h"

namespace supersonic::bench {

// A micro-batch, (T) each; labels are all trained. hi: the token itself.
struct Feeds {
  const std::int32_t *ids, *positions, *lo, *hi, *labels;
};

class HandStep {
 public:
  // model: its weights where the backend's kernels read them. lora: an adapter on all seven linears
  // of each layer, one rank for all; its values, in host memory, are where the step starts.
  HandStep(const models::Model& model, const nn::LoraSet& lora, Backend& backend,
           std::int64_t tokens, Compute compute);

  double accumulate(const Feeds& feeds,
                    float scale);  // adds the gradients of scale * sum nll, returns that
  double step(std::int64_t step,
              float learning_rate);  // clips at 1, clears the gradients; returns their norm
  std::size_t arena_bytes() const { return bytes_; }  // activations and workspace
  const StorageRef& gradients() const { return gradients_; }

 private:
  enum Which { kQ, kK, kV, kO, kGate, kUp, kDown, kLinears };
  using Bytes = std::byte*;
  struct Kept {
    Bytes x, mid, q, k, v, o, gate, up, lse;
    std::array<Bytes, kLinears> t;  // scale * x A^T
  };
  // An adapted linear: its weight and where its A (r, in) and B (out, r) begin.
  struct Adapted {
    Value weight;
    std::int64_t a, b, in, out;
  };
  // A sum of products as Gemm describes it.
  struct Product {
    std::vector<Value> operands;
    unsigned trans_x = 0, trans_w = 0;
    void term(const Value& x, bool tall_x, const Value& w, bool tall_w);
  };

  std::size_t lay_out(Bytes base);  // base null: measures
  void record();
  void forward_layer(int i);
  void backward_layer(int i);

  // Values at addresses.
  Value rows(Bytes data, std::int64_t cols) const { return {{Shape{T, cols}, type_}, data}; }
  Value heads(Bytes data, std::int64_t width) const;
  Value floats(Bytes data) const { return {{Shape{T}, DType::f32}, data}; }
  Value feed(int which) const;
  Value adapter(const StorageRef& of, std::int64_t at, std::int64_t n, std::int64_t cols) const;

  void multiply(const Product& p, const Value& y, Work& work, float alpha = 1);
  void multiply_add(const Product& p, const Value& target, Work& work);
  // y (T, out) = x W^T + t B^T, with t = scale * x A^T, which is kept.
  void linear(const Adapted& l, Bytes x, Bytes t, Bytes y, Work& work);
  // dt = scale * dy B; B's gradient += dy^T t; A's gradient += dt^T x.
  void gradient_of_b(const Adapted& l, Bytes dy, Bytes t, Bytes dt, Work& work);
  void gradient_of_a(const Adapted& l, Bytes dt, Bytes x, Work& work);
  void add_dx(Product& p, const Adapted& l, Bytes dy, Bytes dt) const;  // + dy W + dt A
  void norm(Bytes x, const StorageRef& w, Bytes y, bool with_rstd);
  // dx: that of x by dy, the gradient of norm(x), and by base, what goes past the norm, unless
  // null. Wants rstd_ of x.
  void norm_backward(Bytes x, const StorageRef& w, Bytes dy, Bytes base, Bytes dx);
  void rope(Bytes x, std::int64_t width, bool inverse);

  const models::Model& model_;
  Backend& backend_;
  const Maps maps_;
  const std::int64_t T, D, F, Q, G;
  std::int64_t r = 0;
  const DType type_;
  float lora_scale_ = 1;
  StorageRef values_, gradients_, m_, v_;
  Mirror feeds_, hyper_, results_;  // results: loss, sum of the gradients' squares
  std::vector<std::array<Adapted, kLinears>> linears_;  // of each layer
  Calls batch_, update_;

  std::unique_ptr<Arena> arena_;
  std::size_t bytes_ = 0;
  std::vector<Kept> kept_;
  Bytes last_ = nullptr, norm_ = nullptr, d_ = nullptr;  // (T, D)
  std::array<Bytes, 3> dt_{};                            // (T, r)
  Bytes rstd_ = nullptr;                                 // (T)
  Bytes act_ = nullptr, d_o_ = nullptr, dq_ = nullptr, dk_ = nullptr, dv_ = nullptr;
  Work head_work_, mlp_work_, attention_work_, update_work_;
  Work no_work_;  // of norms and rotations, which want none
};

}  // namespace supersonic::bench
