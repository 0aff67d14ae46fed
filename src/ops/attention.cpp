#include "ops/attention.h"

#include "core/autograd.h"
#include "ops/batch_matmul.h"
#include "ops/dequantize.h"
#include "ops/fill.h"
#include "ops/map/arithmetic.h"
#include "ops/map/transcendental.h"
#include "ops/reduce.h"

namespace supersonic {

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lo, const Tensor& hi, float scale, float cap,
                 const Tensor& sinks, Where where) {
  const Attention a{scale, cap};
  return (sinks ? record(a, {q, k, v, lo, hi, sinks}, where) : record(a, {q, k, v, lo, hi}, where))[0];
}

void Attention::infer(Infer& i) {
  i.inputs(5, 6);
  const Shape &q = i.shape(0), &k = i.shape(1);
  i.check(q.rank == 3 && k.rank == 3 && i.shape(2) == k && q[2] == k[2] && k[1] > 0 && q[1] % k[1] == 0,
          "q must be (T, H, D), k and v (S, G, D) with H a multiple of G");
  i.check(i.spec(1).format == i.spec(2).format, "k and v must have one format");
  i.check(i.shape(3) == Shape{q[0]} && i.shape(4) == Shape{q[0]}, "lo and hi must be (T)");
  i.check(i.in.size() == 5 || i.shape(5) == Shape{q[1]}, "sinks must be (H)");
  i.check(i.attrs.as<Attention>().cap >= 0, "the cap must not be negative");
  i.output(q, i.spec(0).dtype);
  i.output(Shape{q[0], q[1]}, i.spec(0).dtype == DType::f64 ? DType::f64 : DType::f32);
}

Tensors Attention::define(const Attention& a, Args in) {
  const DType wide = in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const std::int64_t t = in[0].dim(0), h = in[0].dim(1), d = in[0].dim(2), s = in[1].dim(0), g = in[1].dim(1);
  const Tensor q = permute(reshape(cast(in[0], wide), {t, g, h / g, d}), {1, 2, 0, 3});  // (G, H/G, T, D)
  const Tensor k = permute(reshape(dequantize(in[1], wide), {s, g, 1, d}), {1, 2, 3, 0});      // (G, 1, D, S)
  const Tensor v = permute(reshape(dequantize(in[2], wide), {s, g, 1, d}), {1, 2, 0, 3});      // (G, 1, S, D)
  const Tensor key = reshape(iota(s, wide), {1, s});
  const Tensor below = less(key, cast(reshape(in[3], {t, 1}), wide)), above = less(cast(reshape(in[4], {t, 1}), wide), key);
  const Tensor masked = maximum(below, above);  // (T, S): 1 where the key is out of range
  Tensor scores = scale(batch_matmul(q, k), a.softmax_scale);
  if (a.cap > 0) scores = scale(tanh(scale(scores, 1 / static_cast<double>(a.cap))), a.cap);
  const Tensor allowed = select(reshape(masked, {1, 1, t, s}), fill({1, 1, 1, 1}, wide, -1e30), scores);
  const Tensor sink = in.size() > 5 ? reshape(cast(in[5], wide), {g, h / g, 1, 1}) : Tensor();
  const Tensor top = sink ? maximum(max(allowed, -1), sink) : max(allowed, -1);
  const Tensor p = mul(exp(sub(allowed, top)), shift(scale(reshape(masked, {1, 1, t, s}), -1), 1));
  const Tensor total = sink ? add(sum(p, -1), exp(sub(sink, top))) : sum(p, -1);
  const Tensor none = less(total, fill({1, 1, 1, 1}, wide, 1e-30));  // a row without keys gives zeros
  const Tensor o = div(batch_matmul(p, v), add(total, none));
  const Tensor lse = select(none, fill({1, 1, 1, 1}, wide, -INFINITY), add(log(add(total, none)), top));
  return {cast(reshape(permute(o, {2, 0, 1, 3}), {t, h, d}), in[0].dtype()),
          reshape(permute(reshape(lse, {g, h / g, t}), {2, 0, 1}), {t, h})};
}

Grads Attention::backward(const Attention& a, const BackwardArgs& b) {
  if (b.dy[1] || b.in[1].spec().format) return differentiate(op<Attention>(), Attrs::of(a), b.in, b.dy, b.need);
  CHECK(b.need.size() < 6 || !b.need[5], "attention: sinks are frozen");
  Tensors in = {b.in[0], b.in[1], b.in[2], b.in[3], b.in[4], b.out[0], b.out[1], b.dy[0]};
  if (b.in.size() > 5) in.push_back(b.in[5]);
  const Tensors g = record(op<AttentionGrad>(), Attrs::of(AttentionGrad{a.softmax_scale, a.cap}), in, Where::current());
  return {g[0], g[1], g[2]};
}

std::vector<Case> Attention::cases() {
  auto make = [](std::int64_t t, std::int64_t s, std::int64_t h, std::int64_t g, std::int64_t d, double segment) {
    Case c{{normal({t, h, d}), normal({s, g, d}), normal({s, g, d}),
            {Shape{t}, CaseInput::low, segment, 0, nullptr, CaseInput::i32},
            {Shape{t}, CaseInput::high, segment, 0, nullptr, CaseInput::i32}},
           Attrs::of(Attention{0.3f})};
    c.differences = t <= 9;
    c.tolerance = 2;
    return c;
  };
  // A token that is decoded: one query, keys of a cache from the third on, the last ones not written yet.
  auto decoded = [&](std::int64_t s, std::int64_t h, std::int64_t g, std::int64_t d) {
    Case c = make(1, s, h, g, d, 1);
    c.inputs[3] = {Shape{1}, CaseInput::constant, 2, 0, nullptr, CaseInput::i32};
    c.inputs[4] = {Shape{1}, CaseInput::constant, static_cast<double>(s - 8), 0, nullptr, CaseInput::i32};
    c.name = "decoded";
    c.differences = false;
    return c;
  };
  // The same on a cache that keeps keys and values in a format.
  auto coded = [](Case c, const char* format) {
    c.inputs[1].format = c.inputs[2].format = format;
    c.name += c.name.empty() ? format : std::string("_") + format;
    c.differences = false;
    return c;
  };
  // Few queries and many, one and several columns of the kernels' vectors.
  auto special = [](Case c, float cap, bool sinks, std::string name) {
    c.attrs = Attrs::of(Attention{0.3f, cap});
    if (sinks) c.inputs.push_back({Shape{c.inputs[0].shape[1]}, CaseInput::normal, 0, 0, nullptr, CaseInput::f32});
    c.name = std::move(name);
    return c;
  };
  std::vector<Case> all = {special(make(9, 9, 6, 2, 16, 4), 1.5f, false, "capped"), special(make(130, 130, 4, 2, 32, 70), 1.5f, false, "capped"),
          special(decoded(301, 9, 3, 40), 1.5f, false, "capped_decoded"), special(make(9, 9, 6, 2, 16, 4), 0, true, "sinks"),
          special(make(130, 130, 4, 2, 32, 70), 0, true, "sinks"), special(decoded(301, 9, 3, 40), 0, true, "sinks_decoded"),
          special(make(65, 65, 9, 3, 64, 37), 2.5f, true, "capped_sinks"), make(5, 5, 2, 1, 8, 5), make(9, 9, 6, 2, 16, 4), make(65, 65, 9, 3, 64, 37), make(130, 130, 4, 4, 32, 130),
          make(33, 33, 2, 1, 40, 1), make(3, 3, 2, 2, 16, 2), decoded(70, 6, 2, 64), decoded(301, 9, 3, 40)};
  for (const char* format : {"q8_0", "fp8"})
    for (const Case& c : {make(3, 3, 2, 2, 32, 2), make(65, 65, 9, 3, 64, 37), make(130, 130, 4, 2, 96, 70), decoded(70, 6, 2, 64), decoded(301, 9, 3, 32),
                          decoded(130, 8, 1, 256), special(make(65, 65, 9, 3, 64, 37), 2.5f, true, "capped_sinks"),
                          special(decoded(301, 9, 3, 128), 1.5f, true, "capped_sinks_decoded")})
      all.push_back(coded(c, format));
  all.push_back(coded(make(33, 33, 2, 1, 40, 1), "fp8"));
  all.push_back(coded(decoded(301, 9, 3, 40), "fp8"));
  return all;
}

void AttentionGrad::infer(Infer& i) {
  i.inputs(8, 9);
  i.check(i.shape(7) == i.shape(0) && i.shape(5) == i.shape(0), "o and do must have the shape of q");
  for (int k = 0; k < 3; ++k) i.output(i.shape(k), i.spec(k).dtype);
}

Tensors AttentionGrad::define(const AttentionGrad& a, Args in) {
  const Tensor dys[] = {in[7], Tensor()};
  Tensors forward(in.begin(), in.begin() + 5);
  std::vector<bool> need = {true, true, true, false, false};
  if (in.size() > 8) forward.push_back(in[8]), need.push_back(false);
  Grads g = differentiate(op<Attention>(), Attrs::of(Attention{a.softmax_scale, a.cap}), forward, dys, need);
  g.resize(3);
  return g;
}

}  // namespace supersonic
