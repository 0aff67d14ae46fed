#include "ops/mixture.h"

#include "core/autograd.h"
#include "ops/accumulate.h"
#include "ops/batch_matmul.h"
#include "ops/dequantize.h"
#include "ops/fill.h"
#include "ops/map/arithmetic.h"
#include "ops/pad.h"
#include "ops/reduce.h"

namespace supersonic {
namespace {

DType wide_of(const Tensor& x) { return x.dtype() == DType::f64 ? DType::f64 : DType::f32; }

// (n, width): 1 where the column is row i's index.
Tensor one_hot(const Tensor& index, std::int64_t width, DType wide) {
  return equal(reshape(iota(width, wide), {1, width}),
               cast(reshape(index, {index.numel(), 1}), wide));
}

// Rows by index, from smaller operations.
Tensor pick(const Tensor& x, const Tensor& index) {
  return batch_matmul(one_hot(index, x.dim(0), wide_of(x)), cast(x, wide_of(x)));
}

// (T, D) -> (T·k, D), each row k times.
Tensor repeated(const Tensor& x, std::int64_t k) {
  const std::int64_t t = x.dim(0), d = x.dim(1);
  return reshape(expand(reshape(x, {t, 1, d}), {t, k, d}), {t * k, d});
}

// (E, N): 1 where row n is expert e's.
Tensor rows_of_experts(const Tensor& begin, std::int64_t n, DType wide) {
  const std::int64_t experts = begin.dim(0) - 1;
  const Tensor row = reshape(iota(n, wide), {1, n}), edge = cast(begin, wide);
  const Tensor from = reshape(slice(edge, 0, 0, experts), {experts, 1}),
               to = reshape(slice(edge, 0, 1, experts + 1), {experts, 1});
  return sub(less(row, to), less(row, from));
}

CaseInput line(std::int64_t n, double first, double step) {
  return {Shape{n}, CaseInput::line, first, step, nullptr, CaseInput::i32};
}

}  // namespace

// --- top_k
// ------------------------------------------------------------------------------------------------------------------

Chosen top_k(const Tensor& x, std::int64_t k, Where where) {
  const Tensors y = record(TopK{k}, {x}, where);
  return {y[0], y[1]};
}

void TopK::infer(Infer& i) {
  i.inputs(1);
  const std::int64_t k = i.attrs.as<TopK>().k;
  i.check(i.shape(0).rank == 2 && k >= 1 && k <= i.shape(0)[1],
          "takes x (T, E) and 1 <= k <= E, got k {}", k);
  i.output(Shape{i.shape(0)[0], k}, i.spec(0).dtype);
  i.output(Shape{i.shape(0)[0], k}, DType::i32);
}

Tensors TopK::define(const TopK& a, Args in) {
  const DType wide = wide_of(in[0]);
  const std::int64_t e = in[0].dim(1);
  const Tensor x = cast(in[0], wide), column = reshape(iota(e, wide), {1, e});
  const Tensor nowhere = fill({1, 1}, wide, -1e30);
  Tensor left = x, values, indices;
  for (std::int64_t j = 0; j < a.k; ++j) {
    // The first of the largest: the largest of the negated columns where one stands.
    const Tensor largest = equal(left, max(left, 1));
    const Tensor first =
        scale(max(select(largest, scale(expand(column, x.shape()), -1), nowhere), 1), -1);
    const Tensor here = equal(column, first);
    const Tensor value = sum(mul(x, here), 1);
    values = values ? concat(values, value, 1) : value;
    indices = indices ? concat(indices, first, 1) : first;
    left = select(here, nowhere, left);
  }
  return {cast(values, in[0].dtype()), cast(indices, DType::i32)};
}

Grads TopK::backward(const TopK&, const BackwardArgs& b) {
  return {record(TopKGrad{b.in[0].dim(1)}, {b.out[1], b.dy[0]}, Where::current())[0]};
}

std::vector<Case> TopK::cases() {
  return {{{normal({5, 7})}, Attrs::of(TopK{1})},
          {{normal({9, 8})}, Attrs::of(TopK{3})},
          {{normal({33, 128})}, Attrs::of(TopK{8})},
          {{normal({4, 6})}, Attrs::of(TopK{6})}};
}

void TopKGrad::infer(Infer& i) {
  i.inputs(2);
  i.check(i.shape(0).rank == 2 && i.shape(0) == i.shape(1), "indices and dy must be (T, k)");
  i.output(Shape{i.shape(0)[0], i.attrs.as<TopKGrad>().width}, i.spec(1).dtype);
}

Tensors TopKGrad::define(const TopKGrad& a, Args in) {
  const DType wide = wide_of(in[1]);
  const std::int64_t t = in[0].dim(0), k = in[0].dim(1);
  const Tensor hot = reshape(one_hot(in[0], a.width, wide), {t, k, a.width});
  const Tensor dx = sum(mul(hot, cast(reshape(in[1], {t, k, 1}), wide)), 1);
  return {cast(reshape(dx, {t, a.width}), in[1].dtype())};
}

// --- group_rows
// -------------------------------------------------------------------------------------------------------------

Groups group_rows(const Tensor& indices, std::int64_t experts, Where where) {
  const Tensors y = record(GroupRows{experts}, {reshape(indices, {indices.numel()})}, where);
  return {y[0], y[1], y[2], y[3]};
}

void GroupRows::infer(Infer& i) {
  i.inputs(1);
  const std::int64_t experts = i.attrs.as<GroupRows>().experts;
  i.check(i.shape(0).rank == 1 && experts >= 1, "takes ids (N) and at least one expert");
  for (const Shape& s : {i.shape(0), i.shape(0), Shape{experts + 1}, i.shape(0)})
    i.output(s, DType::i32);
}

Tensors GroupRows::define(const GroupRows& a, Args in) {
  constexpr DType wide = DType::f64;
  const std::int64_t n = in[0].dim(0);
  const Tensor id = cast(in[0], wide), entry = iota(n, wide);
  const auto row = [&](const Tensor& x) { return reshape(x, {1, n}); };
  const auto column = [&](const Tensor& x) { return reshape(x, {n, 1}); };
  // An entry's row: how many come before it, by expert and then by number.
  const Tensor same = mul(equal(row(id), column(id)), less(row(entry), column(entry)));
  const Tensor place = reshape(sum(add(less(row(id), column(id)), same), 1), {n});
  const Tensor at = equal(row(place), column(entry));  // (row, entry)
  const Tensor order = reshape(sum(mul(at, row(entry)), 1), {n}),
               sorted = reshape(sum(mul(at, row(id)), 1), {n});
  const Tensor edge = reshape(iota(a.experts + 1, wide), {a.experts + 1, 1});
  const Tensor begin = reshape(sum(less(row(id), edge), 1), {a.experts + 1});
  return {cast(order, DType::i32), cast(place, DType::i32), cast(begin, DType::i32),
          cast(sorted, DType::i32)};
}

std::vector<Case> GroupRows::cases() {
  Case few{{index_input({7}, 3)}, Attrs::of(GroupRows{4})},
      many{{index_input({130}, 17)}, Attrs::of(GroupRows{17})};
  few.differences = many.differences = few.bf16 = many.bf16 = false;
  return {few, many};
}

// --- dispatch
// ---------------------------------------------------------------------------------------------------------------

Tensor dispatch(const Tensor& x, const Groups& g, Where where) {
  return record(Dispatch{}, {x, g.order, g.place}, where)[0];
}

void Dispatch::infer(Infer& i) {
  i.inputs(3);
  i.check(i.shape(0).rank == 2 && i.shape(1).rank == 1 && i.shape(1) == i.shape(2) &&
              i.shape(0)[0] > 0 && i.shape(1)[0] % i.shape(0)[0] == 0,
          "takes x (T, D), order and place (T·k)");
  i.output(Shape{i.shape(1)[0], i.shape(0)[1]}, i.spec(0).dtype);
}

Tensors Dispatch::define(const Dispatch&, Args in) {
  return {cast(pick(repeated(in[0], in[1].dim(0) / in[0].dim(0)), in[1]), in[0].dtype())};
}

Grads Dispatch::backward(const Dispatch&, const BackwardArgs& b) {
  const std::int64_t t = b.in[0].dim(0), k = b.in[1].dim(0) / t;
  const Tensor ones = fill({t, k}, b.dy[0].dtype(), 1.0);
  return {record(Combine{}, {b.dy[0], ones, b.in[1], b.in[2]}, Where::current())[0]};
}

// The reverse order is its own inverse.
std::vector<Case> Dispatch::cases() {
  return {{{normal({5, 7}), line(5, 4, -1), line(5, 4, -1)}, {}},
          {{normal({6, 33}), line(18, 17, -1), line(18, 17, -1)}, {}}};
}

// --- combine
// ----------------------------------------------------------------------------------------------------------------

Tensor combine(const Tensor& x, const Tensor& weights, const Groups& g, Where where) {
  return record(Combine{}, {x, weights, g.order, g.place}, where)[0];
}

void Combine::infer(Infer& i) {
  i.inputs(4);
  i.check(i.shape(0).rank == 2 && i.shape(1).rank == 2 && i.shape(1).numel() == i.shape(0)[0] &&
              i.shape(2) == Shape{i.shape(0)[0]} && i.shape(3) == i.shape(2),
          "takes x (T·k, D), weights (T, k), order and place (T·k)");
  i.output(Shape{i.shape(1)[0], i.shape(0)[1]}, i.spec(0).dtype);
}

Tensors Combine::define(const Combine&, Args in) {
  const DType wide = wide_of(in[0]);
  const std::int64_t t = in[1].dim(0), k = in[1].dim(1), d = in[0].dim(1);
  const Tensor rows = reshape(pick(in[0], in[3]), {t, k, d});
  return {cast(reshape(sum(mul(rows, cast(reshape(in[1], {t, k, 1}), wide)), 1), {t, d}),
               in[0].dtype())};
}

Grads Combine::backward(const Combine&, const BackwardArgs& b) {
  const Tensors g =
      record(CombineGrad{}, {b.in[0], b.in[1], b.in[2], b.in[3], b.dy[0]}, Where::current());
  return {b.need[0] ? g[0] : Tensor(), b.need[1] ? g[1] : Tensor()};
}

std::vector<Case> Combine::cases() {
  return {{{normal({5, 7}), normal({5, 1}), line(5, 4, -1), line(5, 4, -1)}, {}},
          {{normal({18, 33}), normal({6, 3}), line(18, 17, -1), line(18, 17, -1)}, {}}};
}

void CombineGrad::infer(Infer& i) {
  i.inputs(5);
  i.check(i.shape(4).rank == 2 && i.shape(4)[0] == i.shape(1)[0] && i.shape(4)[1] == i.shape(0)[1],
          "dy must be (T, D)");
  i.output(i.shape(0), i.spec(0).dtype);
  i.output(i.shape(1), i.spec(1).dtype);
}

Tensors CombineGrad::define(const CombineGrad&, Args in) {
  const DType wide = wide_of(in[0]);
  const std::int64_t t = in[1].dim(0), k = in[1].dim(1), d = in[0].dim(1);
  const Tensor dy = cast(reshape(in[4], {t, 1, d}), wide);
  const Tensor weighted = mul(expand(dy, {t, k, d}), cast(reshape(in[1], {t, k, 1}), wide));
  const Tensor dx = pick(reshape(weighted, {t * k, d}), in[2]);
  const Tensor dw = sum(mul(reshape(pick(in[0], in[3]), {t, k, d}), dy), 2);
  return {cast(dx, in[0].dtype()), cast(reshape(dw, {t, k}), in[1].dtype())};
}

// --- grouped_linear
// ---------------------------------------------------------------------------------------------------------

Tensor grouped_linear(const Tensor& x, const Tensor& w, const Groups& g, bool sensitive,
                      Where where) {
  return record(GroupedLinear{0, sensitive}, {x, w, g.begin}, where)[0];
}

void GroupedLinear::infer(Infer& i) {
  i.inputs(3);
  const Shape &x = i.shape(0), &w = i.shape(1);
  const std::int64_t experts = i.shape(2).rank == 1 ? i.shape(2)[0] - 1 : 0;
  i.check(x.rank == 2 && w.rank == 2 && experts >= 1 && w[0] % experts == 0,
          "takes x (N, C), W (E·R, C) and begin (E + 1)");
  const std::int64_t rows = w[0] / experts;
  const bool trans = i.attrs.as<GroupedLinear>().trans;
  i.check(x[1] == (trans ? rows : w[1]), "{} does not multiply {} matrices ({}, {})", to_string(x),
          experts, rows, w[1]);
  i.output(Shape{x[0], trans ? w[1] : rows}, i.spec(0).dtype);
}

Tensors GroupedLinear::define(const GroupedLinear& a, Args in) {
  const DType wide =
      wide_of(in[0]) == DType::f64 || in[1].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const std::int64_t n = in[0].dim(0), experts = in[2].dim(0) - 1, rows = in[1].dim(0) / experts,
                     cols = in[1].dim(1);
  const Tensor w = reshape(dequantize(in[1], wide), {experts, rows, cols});
  const Tensor all = batch_matmul(reshape(cast(in[0], wide), {1, n, in[0].dim(1)}),
                                  a.trans ? w : transpose_last(w));  // (E, N, …)
  const Tensor y = sum(mul(all, reshape(rows_of_experts(in[2], n, wide), {experts, n, 1})), 0);
  return {cast(reshape(y, {n, a.trans ? cols : rows}), in[0].dtype())};
}

Grads GroupedLinear::backward(const GroupedLinear& a, const BackwardArgs& b) {
  Grads g(b.in.size());
  if (b.need[0])
    g[0] = record(GroupedLinear{!a.trans, 0}, {b.dy[0], b.in[1], b.in[2]}, Where::current())[0];
  if (!b.need[1] || b.in[1].spec().format) return g;
  const Tensor &left = a.trans ? b.in[0] : b.dy[0], &right = a.trans ? b.dy[0] : b.in[0];
  g[1] = record(GroupedLinearGrad{static_cast<std::int32_t>(b.in[1].dtype())},
                {left, right, b.in[2]}, Where::current())[0];
  return g;
}

std::vector<Case> GroupedLinear::cases() {
  // begin: 0, step, 2 step, … N; and experts without a row: all begin at 0 but the last.
  auto make = [](std::int64_t n, std::int64_t experts, std::int64_t r, std::int64_t c, int trans,
                 const char* format) {
    Case x{{normal({n, trans ? r : c}),
            {Shape{experts * r, c}, CaseInput::normal, 0, 0, format},
            line(experts + 1, 0, static_cast<double>(n / experts))},
           Attrs::of(GroupedLinear{trans, 0}),
           (trans ? "trans_" : "") + std::string(format ? format : "dense")};
    x.differences = !format && n < 20;
    return x;
  };
  // An adapter's matrices are f32 beside rows of any type.
  Case adapter = make(75, 3, 16, 64, 0, nullptr);
  adapter.inputs[1].kind = CaseInput::f32, adapter.name = "adapter";
  return {adapter,
          make(12, 4, 5, 7, 0, nullptr),
          make(12, 4, 5, 7, 1, nullptr),
          make(75, 3, 49, 64, 0, nullptr),
          make(75, 3, 49, 64, 1, nullptr),
          make(4, 4, 32, 96, 0, "q4_0"),
          make(66, 2, 35, 96, 0, "q8_0"),
          make(66, 2, 32, 96, 1, "q8_0"),
          make(6, 3, 33, 512, 0, "q4_k")};
}

// --- grouped_linear_grad
// ----------------------------------------------------------------------------------------------------

namespace {

// Of a gradient's operands, beginning with input `first`; returns the matrices one below the other.
Shape infer_grad(Infer& i, int first) {
  const Shape &dy = i.shape(first), &x = i.shape(first + 1), &begin = i.shape(first + 2);
  i.check(dy.rank == 2 && x.rank == 2 && dy[0] == x[0] && begin.rank == 1 && begin[0] >= 2,
          "takes dy (N, R), x (N, C) and begin (E + 1)");
  return Shape{(begin[0] - 1) * dy[1], x[1]};
}

}  // namespace

void GroupedLinearGrad::infer(Infer& i) {
  i.inputs(3);
  i.output(infer_grad(i, 0), static_cast<DType>(i.attrs.as<GroupedLinearGrad>().dtype));
}

// The narrower operand has the rows of other experts cleared, once for each expert.
Tensors GroupedLinearGrad::define(const GroupedLinearGrad& a, Args in) {
  const DType wide =
      wide_of(in[0]) == DType::f64 || in[1].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const std::int64_t n = in[0].dim(0), experts = in[2].dim(0) - 1, r = in[0].dim(1),
                     c = in[1].dim(1);
  const Tensor mine = reshape(rows_of_experts(in[2], n, wide), {experts, n, 1});
  Tensor dy = reshape(cast(in[0], wide), {1, n, r}), x = reshape(cast(in[1], wide), {1, n, c});
  Tensor& narrow = r <= c ? dy : x;
  narrow = mul(mine, expand(narrow, {experts, n, narrow.dim(2)}));
  const Tensor dw = batch_matmul(transpose_last(dy), x);  // (E, R, C)
  return {cast(reshape(dw, {experts * r, c}), static_cast<DType>(a.dtype))};
}

std::vector<Case> GroupedLinearGrad::cases() {
  auto make = [](std::int64_t n, std::int64_t r, std::int64_t c, CaseInput begin,
                 const char* name) {
    Case x{{normal({n, r}), normal({n, c}), begin},
           Attrs::of(GroupedLinearGrad{static_cast<std::int32_t>(DType::f32)}),
           name};
    x.differences = n < 20;
    return x;
  };
  // begin 0, 0, 0, 3, 3, 3, 6: experts without a row, first and between others; and one with more
  // rows than are multiplied at a time.
  return {
      make(12, 5, 7, line(5, 0, 3), "small"),
      make(75, 49, 64, line(4, 0, 25), "wide"),
      make(33, 16, 130, line(4, 0, 11), "narrow_left"),
      make(33, 130, 16, line(4, 0, 11), "narrow_right"),
      make(6, 4, 7, {Shape{7}, CaseInput::low, 3, 0, nullptr, CaseInput::i32}, "some_without_rows"),
      make(1030, 8, 24, line(2, 0, 1030), "long")};
}

void GroupedLinearGradAccumulate::infer(Infer& i) {
  i.inputs(4);
  const Shape dw = infer_grad(i, 1);
  i.check(i.shape(0) == dw, "target must be {}", to_string(dw));
}

Tensors GroupedLinearGradAccumulate::define(const GroupedLinearGradAccumulate&, Args in) {
  accumulate(in[0], record(GroupedLinearGrad{static_cast<std::int32_t>(in[0].dtype())},
                           {in[1], in[2], in[3]}, Where::current())[0]);
  return {};
}

bool fold_grouped_linear_grad(const FoldArgs& f, FoldNode& out) {
  const FoldNode* g = f.producers[1];
  if (!g || g->op != &op<GroupedLinearGrad>()) return false;
  out = *g;
  out.op = &op<GroupedLinearGradAccumulate>();
  out.attrs = {};
  out.in.insert(out.in.begin(), f.node.in[0]);
  return true;
}

}  // namespace supersonic
