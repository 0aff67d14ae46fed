#include "ops/embedding.h"

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

Tensors Embedding::define(const Embedding& a, Args in) {
  const DType dtype = static_cast<DType>(a.dtype), wide = dtype == DType::f64 || in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const std::int64_t v = in[0].dim(0), t = in[1].dim(0);
  const Tensor one_hot = equal(reshape(iota(v, wide), {1, v}), cast(reshape(in[1], {t, 1}), wide));
  return {cast(batch_matmul(one_hot, dequantize(in[0], wide)), dtype)};
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

}  // namespace supersonic
