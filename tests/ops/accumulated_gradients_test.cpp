// Gradients that are added up where they are kept: folded into the operation that makes them,
// against the same gradient made and added apart, in fp64; and storages cleared in place.
#include <gtest/gtest.h>

#include "op_harness.h"
#include "ops/accumulate.h"
#include "ops/embedding.h"
#include "ops/linear_xent.h"
#include "ops/mixture.h"

namespace supersonic::testing {
namespace {

StorageRef input(const CaseInput& c, std::uint64_t seed) { return make_input(c, DType::f32, seed); }

Tensors leaves(const std::vector<StorageRef>& in) {
  Tensors t;
  for (const auto& s : in) t.push_back(from_storage(s));
  return t;
}

// target + gradient(in), by the device under test in one step of that kernel, and by the definition
// in fp64.
void expect_added(const Op& gradient, const Attrs& attrs, const std::vector<StorageRef>& in,
                  Shape shape, const char* kernel, double tolerance) {
  const StorageRef target = input(normal(shape), 7);
  std::vector<StorageRef> wide;
  for (const auto& s : in) wide.push_back(widened(s));
  const auto want = run(
      [&] {
        return Tensors{add(from_storage(widened(target)), gradient.define(attrs, leaves(wide))[0],
                           Where::current())};
      },
      {}, cpu_backend());
  const auto here = placed(in);
  const auto there = placed({target})[0];
  std::string plan;
  const auto got = run([&] {
    const Tensors x = leaves(here);
    accumulate(from_storage(there), record(gradient, attrs, x, Where::current())[0]);
    return Tensors{scale(from_storage(there), 1)};
  });
  plan = plan_only(
             [&] {
               const Tensors x = leaves(here);
               accumulate(from_storage(there), record(gradient, attrs, x, Where::current())[0]);
               return Tensors{};
             },
             test_backend(), {})
             ->explain();
  EXPECT_NE(plan.find(kernel), std::string::npos) << plan;
  EXPECT_LE(relative_error(got[0], want[0]), tolerance);
}

std::vector<StorageRef> inputs(const std::vector<CaseInput>& cases) {
  std::vector<StorageRef> in;
  for (std::size_t i = 0; i < cases.size(); ++i) in.push_back(input(cases[i], 40 + i));
  return in;
}

TEST(AccumulatedGradients, OfATableOfEmbeddings) {
  expect_added(op<EmbeddingGrad>(), Attrs::of(EmbeddingGrad{40}),
               inputs({index_input({130}, 40), normal({130, 300})}), {40, 300},
               "embedding_grad_accumulate", 1e-6);
}

TEST(AccumulatedGradients, OfTheHead) {
  const CaseInput factor{Shape{1}, CaseInput::constant, 0.5, 0, nullptr, CaseInput::f32};
  const CaseInput labels{Shape{300}, CaseInput::index, -9, 900, nullptr, CaseInput::i32};
  const CaseInput lse{Shape{300}, CaseInput::line, 12, 0.01, nullptr, CaseInput::f32},
      nll{Shape{300}, CaseInput::line, 0, 0.02, nullptr, CaseInput::f32};
  expect_added(op<LinearXentWeightGrad>(), Attrs::of(LinearXentWeightGrad{}),
               inputs({normal({300, 24}), normal({900, 24}), labels, factor, factor, lse, nll}),
               {900, 24}, "linear_xent_weight_grad_accumulate", 1e-5);
}

// The second of three experts gets no row, the third more than are multiplied at a time.
TEST(AccumulatedGradients, OfTheMatricesOfExperts) {
  const CaseInput begin{Shape{4}, CaseInput::index, 0, 0, nullptr, CaseInput::i32};
  const StorageRef groups = input(begin, 3);
  for (int i = 0; const std::int32_t at : {0, 40, 40, 640}) groups->as<std::int32_t>()[i++] = at;
  const StorageRef dy = input(normal({640, 16}), 4), x = input(normal({640, 70}), 5);
  expect_added(op<GroupedLinearGrad>(),
               Attrs::of(GroupedLinearGrad{static_cast<std::int32_t>(DType::f32)}), {dy, x, groups},
               {48, 70}, "grouped_linear_grad_accumulate", 1e-6);
}

TEST(AccumulatedGradients, ClearingTakesNoMemory) {
  const StorageRef target = placed({input(normal({33, 70}), 1)})[0];
  const auto cleared = [&] { return clear(from_storage(target)), Tensors{}; };
  EXPECT_EQ(plan_only(cleared, test_backend(), {})->peak(test_backend().compute_place()), 0u);
  run(cleared);
  const auto values = run([&] { return Tensors{scale(from_storage(target), 1)}; });
  for (const double x : values[0]) EXPECT_EQ(x, 0.0);
}

}  // namespace
}  // namespace supersonic::testing
