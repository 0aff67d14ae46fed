// A small transformer with LoRA, made of operations alone, with everything that a training step has: a quantized weight, packed
// attention, one checkpoint region a layer, gradients accumulated into storages, AdamW on fp32 parameters.
#pragma once
#include <cmath>

#include "../ops/op_harness.h"
#include "core/tape.h"
#include "ops/accumulate.h"
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/batch_matmul.h"
#include "ops/embedding.h"
#include "ops/gemm.h"
#include "ops/linear_xent.h"
#include "ops/map/transcendental.h"
#include "ops/rms_norm.h"

namespace supersonic::testing {

inline StorageRef random_storage(const Spec& spec, std::uint64_t seed, double sigma, std::string name = {}) {
  StorageRef s = Storage::make(spec, std::move(name));
  if (spec.format) {
    fill_quantized(*s, seed);
    return s;
  }
  for (std::int64_t i = 0; i < spec.numel(); ++i) put(*s, i, sigma * gaussian(seed, static_cast<std::uint64_t>(i)));
  return s;
}
inline std::vector<std::byte> bytes_in(const Storage& s) {
  const auto* p = s.as<std::byte>();
  return {p, p + s.bytes};
}

struct TinyModel {
  static constexpr std::int64_t kTokens = 40, kDim = 32, kHeads = 2, kHidden = 64, kVocabulary = 50, kRank = 4;
  struct Layer {
    StorageRef norm1, norm2, q, k, v, o, gate, up, down;
    StorageRef a, b, grad_a, grad_b, m_a, v_a, m_b, v_b;  // flat, fp32
  };
  std::vector<Layer> layers;
  StorageRef table, head, ids, labels, lo, hi, one, hyper;
  DType dtype;

  explicit TinyModel(int depth = 4, DType type = DType::f32) : dtype(type) {
    std::uint64_t seed = 1;
    auto weight = [&](Shape shape, const char* format = nullptr) {
      return random_storage({shape, format ? DType::quant : dtype, format ? find_format(format) : nullptr}, ++seed, 0.15, "weight");
    };
    auto flat = [&](std::int64_t n, double sigma) { return random_storage({Shape{n}, DType::f32, nullptr}, ++seed, sigma, "state"); };
    for (int l = 0; l < depth; ++l) {
      Layer y;
      y.norm1 = weight({kDim}), y.norm2 = weight({kDim});
      y.q = weight({kDim, kDim}), y.k = weight({kDim, kDim}), y.v = weight({kDim, kDim}, "q8_0"), y.o = weight({kDim, kDim}, "q4_0");
      y.gate = weight({kHidden, kDim}, "nf4"), y.up = weight({kHidden, kDim}), y.down = weight({kDim, kHidden}, "q4_1");
      y.a = flat(kRank * kDim, 0.3), y.b = flat(kDim * kRank, 0.3);
      y.grad_a = flat(kRank * kDim, 0), y.grad_b = flat(kDim * kRank, 0);
      y.m_a = flat(kRank * kDim, 0), y.v_a = flat(kRank * kDim, 0), y.m_b = flat(kDim * kRank, 0), y.v_b = flat(kDim * kRank, 0);
      layers.push_back(y);
    }
    table = weight({kVocabulary, kDim}), head = weight({kVocabulary, kDim}, "q8_0");
    auto whole = [](std::int64_t n) { return Storage::make({Shape{n}, DType::i32, nullptr}); };
    ids = whole(kTokens), labels = whole(kTokens), lo = whole(kTokens), hi = whole(kTokens);
    for (std::int64_t i = 0; i < kTokens; ++i) {
      put(*ids, i, static_cast<double>(i * 7 % kVocabulary));
      put(*labels, i, i % 5 == 0 ? -1.0 : static_cast<double>(i * 11 % kVocabulary));
      put(*lo, i, static_cast<double>(i / 9 * 9));
      put(*hi, i, static_cast<double>(i));
    }
    one = Storage::make({Shape{1}, DType::f32, nullptr});
    put(*one, 0, 1.0 / kTokens);
    hyper = Storage::make({Shape{4}, DType::f32, nullptr});
    put(*hyper, 0, 1e-2), put(*hyper, 1, 1);
  }

  Tensor layer(const Layer& y, Tensor x) const {
    const Tensor h = rms_norm(x, from_storage(y.norm1), 1e-5f);
    const Tensor a = reshape(from_storage(y.a), {kRank, kDim}), b = reshape(from_storage(y.b), {kDim, kRank});
    auto heads = [](const Tensor& t) { return reshape(t, {kTokens, kHeads, kDim / kHeads}); };
    const Tensor q = heads(add(linear(h, from_storage(y.q)), linear(linear(h, a, dtype), b, dtype)));
    const Tensor k = heads(linear(h, from_storage(y.k))), v = heads(linear(h, from_storage(y.v)));
    const Tensor o = reshape(attention(q, k, v, from_storage(lo), from_storage(hi), 0.25f), {kTokens, kDim});
    x = add(x, linear(o, from_storage(y.o)));
    const Tensor u = rms_norm(x, from_storage(y.norm2), 1e-5f);
    return add(x, linear(swiglu(linear(u, from_storage(y.gate)), linear(u, from_storage(y.up))), from_storage(y.down)));
  }

  Tensor loss() const {
    Tensor x = embedding(from_storage(table), from_storage(ids), dtype);
    for (const Layer& y : layers) {
      Region region;
      x = layer(y, x);
    }
    return linear_xent(x, from_storage(head), from_storage(labels), from_storage(one));
  }

  // One training step: gradients are added to their storages, parameters and moments are written.
  Tensors step(bool optimise = true) const {
    const Tensor value = loss();
    Tensors wrt;
    std::vector<StorageRef> grads;
    for (const Layer& y : layers) {
      wrt.push_back(from_storage(y.a)), wrt.push_back(from_storage(y.b));
      grads.push_back(y.grad_a), grads.push_back(y.grad_b);
    }
    backward(value, wrt, [&](int i, const Tensor& g) { accumulate(from_storage(grads[i]), g); });
    if (!optimise) return {value};
    for (const Layer& y : layers) {
      const StorageRef state[2][4] = {{y.a, y.m_a, y.v_a, y.grad_a}, {y.b, y.m_b, y.v_b, y.grad_b}};
      for (const auto& [p, m, v, g] : state) {
        const Tensor grad = from_storage(g);
        record(AdamW{0.9f, 0.99f, 1e-8f, 0.01f},
               {from_storage(p), from_storage(m), from_storage(v), grad, from_storage(hyper), sum_squares(grad)}, Where::current());
      }
    }
    return {value};
  }

  std::vector<StorageRef> written() const {
    std::vector<StorageRef> all;
    for (const Layer& y : layers)
      for (const auto& s : {y.a, y.b, y.grad_a, y.grad_b, y.m_a, y.v_a, y.m_b, y.v_b}) all.push_back(s);
    return all;
  }
  std::vector<std::byte> state() const {
    std::vector<std::byte> all;
    for (const auto& s : written())
      for (std::byte b : bytes_in(*s)) all.push_back(b);
    return all;
  }
  void restore(const std::vector<std::byte>& state) const {
    std::size_t at = 0;
    for (const auto& s : written()) {
      std::memcpy(s->as<std::byte>(), state.data() + at, s->bytes);
      at += s->bytes;
    }
  }
};

// What a few steps leave behind: losses and every written storage, bit for bit.
struct Trace {
  std::vector<float> losses;
  std::vector<std::byte> state;
  bool operator==(const Trace&) const = default;
};
inline Trace train(const TinyModel& model, Executor& executor, const Policy& policy, int steps = 2,
                   const std::function<void()>& before_step = {}) {
  const auto start = model.state();
  Program program = Program::capture([&] { return model.step(); }, executor, policy);
  program.plan().verify();
  Trace trace;
  for (int s = 0; s < steps; ++s) {
    if (before_step) before_step();
    program.run();
    trace.losses.push_back(program.result(0).values<float>()[0]);
  }
  trace.state = model.state();
  model.restore(start);
  return trace;
}

// The smallest budget, to 1 KiB, with which a plan exists.
inline std::size_t least_budget(const std::function<Tensors()>& fn, Backend& backend, Policy policy = {}) {
  std::size_t low = 0, high = plan_only(fn, backend, policy)->peak(backend.compute_place());
  while (high - low > 1024) {
    policy.budget = low + (high - low) / 2;
    try {
      high = plan_only(fn, backend, policy)->peak(backend.compute_place());
    } catch (const Error&) {
      low = policy.budget;
    }
  }
  return high;
}

}  // namespace supersonic::testing
