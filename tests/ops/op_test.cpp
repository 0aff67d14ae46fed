// Generated from every operation's record: kernel against definition in fp64, gradients of the kernels against the differentiated
// definition, gradients against finite differences in fp64, int8 products against fp64; outputs and arena poisoned, inputs misaligned, plans verified.
#include <gtest/gtest.h>

#include <algorithm>

#include "op_harness.h"

namespace supersonic::testing {
namespace {

struct OpRun {
  const Op* op;
  Case c;
  DType dtype;
};

void PrintTo(const OpRun& r, std::ostream* os) { *os << r.op->name << " " << name_of(r.dtype) << " " << r.c.name; }

std::vector<OpRun> all_runs() {
  std::vector<OpRun> runs;
  for (const Op* op : all_ops()) {
    if (!op->cases) continue;
    for (const Case& c : op->cases()) {
      runs.push_back({op, c, DType::f32});
      if (c.bf16) runs.push_back({op, c, DType::bf16});
    }
  }
  return runs;
}

std::string name_of_run(const ::testing::TestParamInfo<OpRun>& info) {
  return std::string(info.param.op->name) + "_" + std::string(name_of(info.param.dtype)) + "_" + std::to_string(info.index) +
         (info.param.c.name.empty() ? "" : "_" + info.param.c.name);
}

// Results carry one rounding; sums of a few hundred fp32 terms a little more.
double tolerance(const OpRun& r) { return r.c.tolerance * (r.dtype == DType::f32 ? 1e-5 : 8e-3); }

std::vector<StorageRef> inputs_of(const OpRun& r) {
  std::vector<StorageRef> in;
  for (std::size_t i = 0; i < r.c.inputs.size(); ++i) in.push_back(make_input(r.c.inputs[i], r.dtype, 100 + i));
  return in;
}
std::vector<StorageRef> widened(const std::vector<StorageRef>& in) {
  std::vector<StorageRef> out;
  for (const auto& s : in) out.push_back(testing::widened(s));
  return out;
}
Tensors leaves(const std::vector<StorageRef>& in) {
  Tensors t;
  for (const auto& s : in) t.push_back(from_storage(s));
  return t;
}
Tensors record_op(const OpRun& r, const Tensors& in) { return record(*r.op, r.c.attrs, in, Where::current()); }
Tensors define(const OpRun& r, const Tensors& in) { return r.op->define ? r.op->define(r.c.attrs, in) : record_op(r, in); }

bool differentiable(const OpRun& r) {
  return (r.op->backward || r.op->define) && !r.op->traits.effect;
}
// Only output 0 is differentiated: the others (rstd, lse, dx) are by-products.
Tensors grads_of(const OpRun& r, const Tensors& in, const Tensors& out, const StorageRef& cotangent) {
  Tensors wrt;
  for (std::size_t i = 0; i < in.size(); ++i)
    if (r.c.inputs[i].kind == CaseInput::data && !r.c.inputs[i].format) wrt.push_back(in[i]);
  const Tensor dy = from_storage(cotangent);
  Tensors g = gradients(std::span(&out[0], 1), std::span(&dy, 1), wrt);
  std::erase_if(g, [](const Tensor& t) { return !t; });
  return g;
}
StorageRef cotangent_for(const OpRun& r, const std::vector<StorageRef>& in, DType like) {
  const Tensor out = record_op(r, leaves(in))[0];
  Tape::current().nodes().clear();
  StorageRef s = Storage::make({out.shape(), like == DType::f64 ? DType::f64 : out.dtype(), nullptr});
  for (std::int64_t i = 0; i < s->spec.numel(); ++i) put(*s, i, static_cast<float>(bf16(static_cast<float>(gaussian(7, i)))));
  return s;
}

class OpTest : public ::testing::TestWithParam<OpRun> {};
class OpInt8Test : public ::testing::TestWithParam<OpRun> {};
class OpGradientTest : public ::testing::TestWithParam<OpRun> {};
class OpDifferencesTest : public ::testing::TestWithParam<OpRun> {};

TEST_P(OpTest, KernelEqualsDefinition) {
  const OpRun& r = GetParam();
  const auto in = inputs_of(r), wide = widened(in), here = placed(in);
  const auto got = run([&] { return record_op(r, leaves(here)); });
  const auto want = run([&] { return define(r, leaves(wide)); }, {}, cpu_backend());
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t o = 0; o < got.size(); ++o) EXPECT_LE(relative_error(got[o], want[o]), tolerance(r)) << "output " << o;
}

TEST_P(OpTest, EachOutputAloneIsTheSame) {
  const OpRun& r = GetParam();
  const auto in = placed(inputs_of(r));
  const auto all = run([&] { return record_op(r, leaves(in)); });
  for (std::size_t o = 0; o < all.size(); ++o) {
    const auto one = run([&] { return Tensors{record_op(r, leaves(in))[o]}; });
    EXPECT_EQ(relative_error(one[0], all[o]), 0.0) << "output " << o;
  }
}

// Activations in groups of 32 are rounded to 1/127 of the group's largest: of normal numbers (about 2.1 sigma) that is a relative
// error of 2.1 / 127 / sqrt(12) = 0.5 % of x and so of the sums; 1.5 % is three times that.
TEST_P(OpInt8Test, StaysWithinTheRoundingOfActivations) {
  const OpRun& r = GetParam();
  const auto in = inputs_of(r), wide = widened(in), here = placed(in);
  Policy policy;
  policy.compute = Compute::int8;
  const auto got = run([&] { return Tensors{record_op(r, leaves(here))[0]}; }, policy);
  const auto want = run([&] { return Tensors{define(r, leaves(wide))[0]}; }, {}, cpu_backend());
  EXPECT_LE(relative_error(got[0], want[0]), 1.5e-2);
}

TEST_P(OpGradientTest, EqualsDifferentiatedDefinition) {
  const OpRun& r = GetParam();
  const auto in = inputs_of(r), wide = widened(in);
  const StorageRef dy = cotangent_for(r, in, r.dtype), dy64 = testing::widened(dy), dy_here = placed({dy})[0];
  const auto here = placed(in);
  const auto got = run([&] {
    const Tensors x = leaves(here);
    return grads_of(r, x, record_op(r, x), dy_here);
  });
  const auto want = run([&] {
    const Tensors x = leaves(wide);
    Tensors out = define(r, x);
    out[0] = cast(out[0], DType::f64);
    return grads_of(r, x, out, dy64);
  }, {}, cpu_backend());
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t o = 0; o < got.size(); ++o) EXPECT_LE(relative_error(got[o], want[o]), 3 * tolerance(r)) << "gradient " << o;
}

TEST_P(OpDifferencesTest, EqualsGradient) {
  if (apart(test_backend())) GTEST_SKIP() << "compares definitions in fp64, which are the CPU's";
  const OpRun& r = GetParam();
  const auto wide = widened(inputs_of(r));
  auto output = [&](const Tensors& x) { return cast(define(r, x)[0], DType::f64); };
  StorageRef dy;
  {
    const Tensor out = output(leaves(wide));
    Tape::current().nodes().clear();
    dy = Storage::make({out.shape(), DType::f64, nullptr});
    for (std::int64_t i = 0; i < dy->spec.numel(); ++i) put(*dy, i, gaussian(7, i));
  }
  const auto g = run([&] {
    const Tensors x = leaves(wide);
    Tensors out = r.op->backward && !r.op->define ? record_op(r, x) : define(r, x);
    out[0] = cast(out[0], DType::f64);
    return grads_of(r, x, out, dy);
  });
  std::size_t k = 0;
  for (std::size_t i = 0; i < wide.size() && k < g.size(); ++i) {
    if (r.c.inputs[i].kind != CaseInput::data || r.c.inputs[i].format) continue;
    const Storage& s = *wide[i];
    const std::int64_t n = s.spec.numel();
    std::vector<double> direction(n), saved(n);
    double along = 0;
    for (std::int64_t e = 0; e < n; ++e) {
      direction[e] = gaussian(31 + i, e);
      saved[e] = get(s, e);
      along += direction[e] * g[k][e];
    }
    auto loss_at = [&](double h) {
      for (std::int64_t e = 0; e < n; ++e) put(s, e, saved[e] + h * direction[e]);
      const auto out = run([&] { return Tensors{output(leaves(wide))}; });
      double total = 0;
      for (std::size_t e = 0; e < out[0].size(); ++e)
        if (std::isfinite(out[0][e])) total += out[0][e] * get(*dy, static_cast<std::int64_t>(e));
      return total;
    };
    const double h = 1e-5, slope = (loss_at(h) - loss_at(-h)) / (2 * h);
    for (std::int64_t e = 0; e < n; ++e) put(s, e, saved[e]);
    EXPECT_NEAR(along, slope, 1e-5 * (std::abs(slope) + 1)) << "input " << i;
    ++k;
  }
}

std::vector<OpRun> runs_where(bool (*keep)(const OpRun&)) {
  std::vector<OpRun> runs = all_runs();
  std::erase_if(runs, [&](const OpRun& r) { return !differentiable(r) || !keep(r); });
  return runs;
}
std::vector<OpRun> products_with_a_quantized_matrix() {
  std::vector<OpRun> runs = all_runs();
  std::erase_if(runs, [](const OpRun& r) {
    const bool product = r.op->name == "Gemm" || r.op->name == "GroupedLinear" || r.op->name == "LinearXent";
    return !product || std::ranges::none_of(r.c.inputs, [](const CaseInput& i) { return i.format != nullptr; });
  });
  return runs;
}
bool has_definition(const OpRun& r) { return r.op->define != nullptr; }
bool is_small(const OpRun& r) { return r.c.differences && r.dtype == DType::f32; }

INSTANTIATE_TEST_SUITE_P(Generated, OpTest, ::testing::ValuesIn(all_runs()), name_of_run);
INSTANTIATE_TEST_SUITE_P(Generated, OpInt8Test, ::testing::ValuesIn(products_with_a_quantized_matrix()), name_of_run);
INSTANTIATE_TEST_SUITE_P(Generated, OpGradientTest, ::testing::ValuesIn(runs_where(has_definition)), name_of_run);
INSTANTIATE_TEST_SUITE_P(Generated, OpDifferencesTest, ::testing::ValuesIn(runs_where(is_small)), name_of_run);

}  // namespace
}  // namespace supersonic::testing
