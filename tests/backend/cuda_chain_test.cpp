// Chains on the GPU, those of the catalogue and those of the interpreter: programs that models run,
// in both types and of lengths that leave a tail, against the same programs in fp64 on the CPU.
// Skipped where no GPU answers.
#include <gtest/gtest.h>

#include "../core/tiny_model.h"
#include "core/device.h"

namespace supersonic::testing {
namespace {

class CudaChains : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_gpus(&why).empty()) GTEST_SKIP() << why;
  }
};

using Chain = std::function<Tensors(std::span<const Tensor>)>;

std::vector<std::vector<double>> results(Backend& backend, const Chain& chain,
                                         const std::vector<StorageRef>& operands,
                                         int* steps = nullptr) {
  Executor executor(backend);
  int count = 0;
  Program program = Program::capture(
      [&] {
        Tensors in;
        for (const auto& s : operands) in.push_back(from_storage(s));
        const Tensors out = chain(in);
        count = static_cast<int>(out.size());
        return out;
      },
      executor, {});
  program.plan().verify();
  program.run();
  if (steps)
    *steps =
        static_cast<int>(std::count_if(program.plan().steps().begin(), program.plan().steps().end(),
                                       [](const Step& s) { return s.chain && !s.copy; }));
  std::vector<std::vector<double>> all;
  for (int i = 0; i < count; ++i) {
    const Storage& s = program.result(i);
    std::vector<double> v(static_cast<std::size_t>(s.spec.numel()));
    for (std::size_t k = 0; k < v.size(); ++k) v[k] = get(s, static_cast<std::int64_t>(k));
    all.push_back(v);
  }
  return all;
}

// One chain, whatever the operands' type and length; the results of the device against those of
// fp64.
void expect_chain(const char* name, const Chain& chain, int operands) {
  Backend& gpu = device_backend("cuda");
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const std::int64_t n :
         {std::int64_t{1}, std::int64_t{1000}, std::int64_t{4096 * 5}, std::int64_t{70007}}) {
      std::vector<StorageRef> here, there;
      for (int i = 0; i < operands; ++i) {
        const StorageRef s =
            random_storage({Shape{n}, type, nullptr}, static_cast<std::uint64_t>(i) + 1, 1.5);
        StorageRef wide = Storage::make({Shape{n}, DType::f64, nullptr});
        for (std::int64_t k = 0; k < n; ++k) put(*wide, k, get(*s, k));
        here.push_back(wide);
        there.push_back(resident(s, gpu));
      }
      int steps = 0;
      const auto got = results(gpu, chain, there, &steps),
                 want = results(cpu_backend(), chain, here);
      EXPECT_EQ(steps, 1) << name;
      for (std::size_t i = 0; i < got.size(); ++i)
        for (std::size_t k = 0; k < got[i].size(); ++k) {
          // Elements, since a tail is few of them: half a unit in the last place of bf16, some of
          // fp32.
          const double allowed =
              (type == DType::bf16 ? 1.0 / 256 : 2e-6) * std::abs(want[i][k]) + 1e-6;
          ASSERT_NEAR(got[i][k], want[i][k], allowed)
              << name << " " << name_of(type) << " result " << i << " element " << k << " of " << n;
        }
    }
  }
}

TEST_F(CudaChains, SumsProductsAndFactors) {
  expect_chain(
      "add", [](auto in) { return Tensors{add(in[0], in[1], Where::current())}; }, 2);
  expect_chain(
      "mul", [](auto in) { return Tensors{mul(in[0], in[1])}; }, 2);
  expect_chain(
      "scale", [](auto in) { return Tensors{scale(in[0], -1.75)}; }, 1);
}

TEST_F(CudaChains, GatesAndTheirGradientsWithAndWithoutRecomputation) {
  for (const bool again : {false, true}) {
    expect_chain(
        "swiglu",
        [=](auto in) {
          const Tensor &gate = in[0], &up = in[1], &dy = in[2];
          Tensors out;
          if (again) out.push_back(swiglu(gate, up));
          out.push_back(record1(SiluGrad{}, {gate, mul(dy, up)}, Where::current()));
          out.push_back(mul(dy, silu(gate)));
          return out;
        },
        3);
    expect_chain(
        "geglu",
        [=](auto in) {
          const Tensor &gate = in[0], &up = in[1], &dy = in[2];
          Tensors out;
          if (again) out.push_back(geglu(gate, up));
          out.push_back(record1(GeluGrad{}, {gate, mul(dy, up)}, Where::current()));
          out.push_back(mul(dy, gelu(gate)));
          return out;
        },
        3);
    expect_chain(
        "clamped swiglu",
        [=](auto in) {
          const Tensor &gate = in[0], &up = in[1], &dy = in[2];
          Tensors out;
          if (again) out.push_back(clamped_swiglu(gate, up, 1.702f, 7.0f));
          out.push_back(
              record1(ClampedSwigluGateGrad{1.702f, 7.0f}, {gate, up, dy}, Where::current()));
          out.push_back(
              record1(ClampedSwigluUpGrad{1.702f, 7.0f}, {gate, up, dy}, Where::current()));
          return out;
        },
        3);
  }
  expect_chain(
      "swiglu alone", [](auto in) { return Tensors{swiglu(in[0], in[1])}; }, 2);
  expect_chain(
      "geglu alone", [](auto in) { return Tensors{geglu(in[0], in[1])}; }, 2);
  expect_chain(
      "clamped swiglu alone",
      [](auto in) { return Tensors{clamped_swiglu(in[0], in[1], 1.702f, 7.0f)}; }, 2);
}

TEST_F(CudaChains, WhatTheCatalogueLacksIsInterpreted) {
  expect_chain(
      "one load", [](auto in) { return Tensors{tanh(scale(exp(scale(in[0], 0.25)), 0.5))}; }, 1);
  expect_chain(
      "two loads", [](auto in) { return Tensors{sub(sigmoid(in[0]), in[1])}; }, 2);
  expect_chain(
      "five loads",
      [](auto in) {
        return Tensors{
            add(mul(in[0], in[1]), sub(in[2], mul(sigmoid(in[3]), cos(in[4]))), Where::current())};
      },
      5);
}

TEST_F(CudaChains, TheSigmoidOfExtremesIsZeroOrOne) {
  Backend& gpu = device_backend("cuda");
  const StorageRef x = Storage::make({Shape{8}, DType::f32, nullptr});
  const double values[] = {-1e30, -200, -90, -87, 0, 20, 200, 1e30};
  for (int i = 0; i < 8; ++i) put(*x, i, values[i]);
  const auto got =
      results(gpu, [](auto in) { return Tensors{sigmoid(in[0])}; }, {resident(x, gpu)})[0];
  for (int i = 0; i < 8; ++i)
    EXPECT_NEAR(got[i], 1 / (1 + std::exp(-values[i])), 1e-6 / (1 + std::exp(-values[i])) + 2e-38)
        << values[i];
}

}  // namespace
}  // namespace supersonic::testing
