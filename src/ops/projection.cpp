#include "ops/projection.h"

#include "ops/gemm.h"
#include "ops/map/arithmetic.h"
#include "ops/map/transcendental.h"
#include "ops/rms_norm.h"

namespace supersonic {

namespace {
DType dtype_of_result(const Projection& a, DType x) { return a.wide && x != DType::f64 ? DType::f32 : x; }
}  // namespace

void Projection::infer(Infer& i) {
  const auto& a = i.attrs.as<Projection>();
  const DType dtype = dtype_of_result(a, i.spec(0).dtype);
  const int first = a.first_matrix();
  i.check(a.matrices >= 1 && a.matrices <= 3 && (a.gate == none || a.matrices == 2) && (!a.added || (a.matrices == 1 && a.gate == none)),
          "one to three matrices, two with a gate, one with a residual");
  i.inputs(first + a.matrices + a.added);
  const Shape& x = i.shape(0);
  i.check(x.rank == 2, "x must be a matrix");
  i.check(!a.normed || i.shape(1) == Shape{x[1]}, "the norm's weight must be ({})", x[1]);
  for (int m = 0; m < a.matrices; ++m) {
    const Shape& w = i.shape(first + m);
    i.check(w.rank == 2 && w[1] == x[1], "{} does not multiply {}", to_string(x), to_string(w));
    if (a.gate == none) i.output(Shape{x[0], w[0]}, dtype);
  }
  const Shape y{x[0], i.shape(first)[0]};
  if (a.gate != none) {
    i.check(i.shape(first + 1)[0] == y[1], "gate and its operand must have one shape");
    i.output(y, dtype);
  }
  if (a.added) i.check(i.shape(first + 1) == y && i.spec(first + 1).dtype == dtype, "the residual must be {} in the result's dtype", to_string(y));
}

Tensors Projection::define(const Projection& a, Args in) {
  const Tensor x = a.normed ? rms_norm(in[0], in[1], a.eps) : in[0];
  Tensors y;
  for (int m = 0; m < a.matrices; ++m) {
    const GemmTermArgs term{x, in[a.first_matrix() + m], false, false, (a.sensitive >> m & 1) != 0};
    y.push_back(gemm(std::span(&term, 1), dtype_of_result(a, x.dtype())));
  }
  if (a.added) return {add(in[a.first_matrix() + 1], y[0], Where::current())};
  if (a.gate == none) return y;
  return {a.gate == silu ? swiglu(y[0], y[1]) : geglu(y[0], y[1])};
}

std::vector<Case> Projection::cases() {
  auto w = [](std::int64_t n, std::int64_t k, const char* format) { return CaseInput{Shape{n, k}, CaseInput::normal, 0, 0, format}; };
  std::vector<Case> cases;
  auto add_case = [&](const char* name, Projection a, std::vector<CaseInput> inputs) {
    Case c{std::move(inputs), Attrs::of(a), name};
    c.differences = false;
    cases.push_back(c);
  };
  for (const std::int64_t m : {1, 3, 8}) {
    add_case("three_matrices_two_formats", {.matrices = 3}, {normal({m, 512}), w(48, 512, "q4_k"), w(20, 512, "q4_k"), w(16, 512, "q6_k")});
    add_case("norm_and_three", {.matrices = 3, .normed = 1, .eps = 1e-5f},
             {normal({m, 2304}), positive({2304}), w(32, 2304, "q8_0"), w(16, 2304, "q8_0"), w(16, 2304, "q8_0")});
    add_case("norm_and_gate", {.matrices = 2, .normed = 1, .gate = silu, .eps = 1e-5f},
             {normal({m, 512}), positive({512}), w(67, 512, "q4_1"), w(67, 512, "q4_1")});
    add_case("gate_of_two_formats", {.matrices = 2, .gate = gelu_tanh}, {normal({m, 512}), w(48, 512, "q4_k"), w(48, 512, "q6_k")});
    add_case("norm_and_wide", {.matrices = 1, .normed = 1, .wide = 1, .eps = 1e-5f}, {normal({m, 768}), positive({768}), w(85, 768, "q6_k")});
    add_case("residual", {.matrices = 1, .added = 1}, {normal({m, 512}), w(51, 512, "q6_k"), normal({m, 51})});
  }
  // More tiles than a device has blocks.
  add_case("gate_of_many_tiles", {.matrices = 2, .gate = silu}, {normal({1, 256}), w(5001, 256, "q4_k"), w(5001, 256, "q4_k")});
  add_case("many_tiles_of_two_formats", {.matrices = 3, .normed = 1, .eps = 1e-5f},
           {normal({1, 256}), positive({256}), w(4100, 256, "q4_k"), w(1029, 256, "q6_k"), w(2051, 256, "q4_k")});
  add_case("many_rows", {.matrices = 2, .normed = 1, .gate = gelu_tanh, .eps = 1e-5f},
           {normal({19, 256}), positive({256}), w(40, 256, "q4_0"), w(40, 256, "q4_0")});
  add_case("dense", {.matrices = 1, .added = 1}, {normal({2, 64}), normal({24, 64}), normal({2, 24})});
  return cases;
}

}  // namespace supersonic
