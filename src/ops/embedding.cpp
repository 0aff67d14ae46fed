#include "ops/embedding.h"

#include "ops/accumulate.h"
#include "ops/batch_matmul.h"
#include "ops/dequantize.h"
#include "ops/fill.h"
#include "ops/map/arithmetic.h"

namespace supersonic {

Tensor embedding(const Tensor& table, const Tensor& ids, DType dtype, Where where) {
  return record(Embedding{static_cast<std::int64_t>(dtype)}, {table, ids}, where)[0];
}

void Embedding::infer(Infer& i) {
  i.inputs(2);
  i.check(i.shape(0).rank == 2 && i.shape(1).rank == 1, "takes a table (V, D) and ids (T)");
  i.output(Shape{i.shape(1)[0], i.shape(0)[1]}, static_cast<DType>(i.attrs.as<Embedding>().dtype));
}

namespace {

// (T, V): 1 where token t reads row v
Tensor one_hot(const Tensor& ids, std::int64_t rows, DType dtype) {
  return equal(reshape(iota(rows, dtype), {1, rows}), cast(reshape(ids, {ids.dim(0), 1}), dtype));
}

}  // namespace

Tensors Embedding::define(const Embedding& a, Args in) {
  const DType dtype = static_cast<DType>(a.dtype), wide = dtype == DType::f64 || in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  return {cast(batch_matmul(one_hot(in[1], in[0].dim(0), wide), dequantize(in[0], wide)), dtype)};
}

Grads Embedding::backward(const Embedding&, const BackwardArgs& b) {
  if (!b.need[0] || b.in[0].spec().format) return {};
  return {record(EmbeddingGrad{b.in[0].dim(0)}, {b.in[1], b.dy[0]}, Where::current())[0]};
}

std::vector<Case> Embedding::cases() {
  const Attrs a = Attrs::of(Embedding{static_cast<std::int64_t>(DType::f32)});
  Case quant{{{Shape{40, 96}, CaseInput::normal, 0, 0, "q4_1"}, index_input({9}, 40)}, a, "q4_1"};
  Case crossing = quant;  // rows of one and a half blocks have no kernel: the definition
  crossing.inputs[0].format = "nf4";
  crossing.name = "nf4";
  quant.differences = crossing.differences = false;
  return {{{normal({11, 7}), index_input({5}, 11)}, a}, {{normal({50, 64}), index_input({33}, 50)}, a}, quant, crossing};
}

void EmbeddingGrad::infer(Infer& i) {
  i.inputs(2);
  i.check(i.shape(0).rank == 1 && i.shape(1).rank == 2 && i.shape(0)[0] == i.shape(1)[0], "takes ids (T) and dy (T, D)");
  i.output(Shape{i.attrs.as<EmbeddingGrad>().rows, i.shape(1)[1]}, i.spec(1).dtype == DType::f64 ? DType::f64 : DType::f32);
}

Tensors EmbeddingGrad::define(const EmbeddingGrad& a, Args in) {
  const DType wide = in[1].dtype() == DType::f64 ? DType::f64 : DType::f32;
  return {batch_matmul(transpose_last(one_hot(in[0], a.rows, wide)), cast(in[1], wide))};
}

std::vector<Case> EmbeddingGrad::cases() {
  const auto rows = [](std::int64_t n) { return Attrs::of(EmbeddingGrad{n}); };
  return {{{index_input({5}, 11), normal({5, 7})}, rows(11)},
          {{index_input({70}, 3), normal({70, 64})}, rows(3), "many_tokens_a_row"},
          {{index_input({333}, 50), normal({333, 300})}, rows(64), "wide"}};
}

void EmbeddingGradAccumulate::infer(Infer& i) {
  i.inputs(3);
  i.check(i.shape(0).rank == 2 && i.shape(2) == Shape{i.shape(1)[0], i.shape(0)[1]}, "takes a target (V, D), ids (T) and dy (T, D)");
}

Tensors EmbeddingGradAccumulate::define(const EmbeddingGradAccumulate&, Args in) {
  accumulate(in[0], record(EmbeddingGrad{in[0].dim(0)}, {in[1], in[2]}, Where::current())[0]);
  return {};
}

bool fold_embedding_grad(const FoldArgs& f, FoldNode& out) {
  const FoldNode* g = f.producers[1];
  if (!g || g->op != &op<EmbeddingGrad>()) return false;
  out = *g;
  out.op = &op<EmbeddingGradAccumulate>();
  out.attrs = {};
  out.in.insert(out.in.begin(), f.node.in[0]);
  return true;
}

}  // namespace supersonic
