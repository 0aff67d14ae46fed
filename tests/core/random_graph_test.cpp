// Random graphs: whatever the planner does with them, the results are the same. Each seed builds a graph of elementwise work,
// products, norms, reductions, views, effects and gradients in fp32, and runs it under every combination of policies.
#include <gtest/gtest.h>

#include <random>

#include "tiny_model.h"
#include "two_place_backend.h"

namespace supersonic::testing {
namespace {

struct RandomGraph {
  static constexpr std::int64_t kRows = 12, kCols = 16;
  // Large, since rms_norm(x) hardly depends on the length of x: its gradient along x is what two terms leave of each other, about
  // eps / mean(x * x) of them. With the customary 1e-5 some graphs lose four digits or more in fp32 whatever the policy (seed 50:
  // 1e-2 from fp64, and the policies 3e-3 from each other); with 0.1 every result is within 2e-6 of fp64. No maximum has operands closer than
  // 8e-5 of their size, so rounding decides no mask of its gradient.
  static constexpr float kEps = 0.1f;
  std::vector<StorageRef> inputs, written;
  unsigned seed;

  explicit RandomGraph(unsigned s, DType type = DType::f32) : seed(s) {
    for (int i = 0; i < 4; ++i) inputs.push_back(random_storage({Shape{kRows, kCols}, type, nullptr}, s * 10 + i + 1, 0.5));
    inputs.push_back(random_storage({Shape{kCols, kCols}, type, nullptr}, s * 10 + 7, 0.2));
    inputs.push_back(random_storage({Shape{kCols}, type, nullptr}, s * 10 + 8, 0.5));
    for (int i = 0; i < 2; ++i) written.push_back(random_storage({Shape{kRows, kCols}, type, nullptr}, s * 10 + 9 + i, 0.5));
  }

  Tensors build() const {
    std::mt19937 random(seed);
    auto below = [&](std::size_t n) { return random() % n; };
    Tensors pool;  // (kRows, kCols)
    for (int i = 0; i < 4; ++i) pool.push_back(from_storage(inputs[i]));
    const Tensor square = from_storage(inputs[4]), row = from_storage(inputs[5]);
    auto pick = [&] { return pool[pool.size() - 1 - below(std::min<std::size_t>(pool.size(), 8))]; };
    std::unique_ptr<Region> region;
    for (int step = 0; step < 40; ++step) {
      if (below(8) == 0) {
        region.reset();
        region = std::make_unique<Region>();
      }
      switch (below(14)) {
        case 0: pool.push_back(add(pick(), pick(), Where::current())); break;
        case 1: pool.push_back(mul(pick(), sigmoid(pick()))); break;
        case 2: pool.push_back(sub(scale(pick(), 0.75), row)); break;
        case 3: pool.push_back(silu(pick())); break;
        case 4: pool.push_back(linear(pick(), square)); break;
        case 5: pool.push_back(add(linear(pick(), square), linear(pick(), square), Where::current())); break;
        case 6: pool.push_back(rms_norm(pick(), row, kEps)); break;
        case 7: pool.push_back(expand(scale(sum(pick(), 1), 0.1), {kRows, kCols})); break;
        case 8: pool.push_back(reshape(permute(pick(), {1, 0}), {kRows, kCols})); break;
        case 9: pool.push_back(pad(slice(pick(), 1, 2, 10), 1, 3, 5)); break;
        case 10: pool.push_back(sigmoid(maximum(pick(), pick()))); break;
        case 11: accumulate(from_storage(written[below(2)]), scale(pick(), 0.5)); break;
        case 12: pool.push_back(mul(from_storage(written[below(2)]), sigmoid(pick()))); break;
        case 13: assign(slice(from_storage(written[below(2)]), 0, 2, 7), slice(sigmoid(pick()), 0, 5, 10)); break;
      }
    }
    region.reset();
    Tensors results = {pool.back(), pick(), pick()};
    const Tensor loss = sum(reshape(sigmoid(pool.back()), {kRows * kCols}), 0);
    const Tensor wrt[] = {pool[0], pool[1], square, row};
    for (const Tensor& g : gradients(loss, wrt))
      if (g) results.push_back(g);
    results.push_back(loss);
    return results;
  }

  // Results, then what was written; the storages are put back.
  std::vector<std::vector<double>> run(Executor& executor, const Policy& policy) const {
    std::vector<std::vector<std::byte>> start;
    for (const auto& s : written) start.push_back(bytes_in(*s));
    int count = 0;
    Program program = Program::capture([&] {
      Tensors t = build();
      count = static_cast<int>(t.size());
      return t;
    }, executor, policy);
    program.plan().verify();
    program.run();
    std::vector<std::vector<double>> all;
    auto take = [&](const Storage& s) {
      std::vector<double> v(s.spec.numel());
      for (std::size_t i = 0; i < v.size(); ++i) v[i] = get(s, static_cast<std::int64_t>(i));
      all.push_back(v);
    };
    for (int i = 0; i < count; ++i) take(program.result(i));
    for (const auto& s : written) take(*s);
    for (std::size_t i = 0; i < written.size(); ++i) std::memcpy(written[i]->as<void>(), start[i].data(), start[i].size());
    return all;
  }
};

void expect_equal(const std::vector<std::vector<double>>& got, const std::vector<std::vector<double>>& want, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (tolerance == 0) {
      EXPECT_EQ(got[i], want[i]) << what << " result " << i;
    } else {
      EXPECT_LE(relative_error(got[i], want[i]), tolerance) << what << " result " << i;
    }
  }
}

constexpr double kTolerance = 2e-5;  // folded products round once, others at each of up to 40 steps

TEST(RandomGraphs, ResultsAreThoseOfFp64) {
  Policy bare;
  bare.fuse = bare.prepare = bare.reuse = bare.remat_cheap = false;
  for (unsigned seed = 1; seed <= 150; ++seed) {
    Executor executor(cpu_backend());
    const auto want = RandomGraph(seed, DType::f64).run(executor, bare);
    expect_equal(RandomGraph(seed).run(executor, {}), want, kTolerance, fmt::format("seed {}", seed));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(RandomGraphs, EveryPolicyGivesTheSameResults) {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    const RandomGraph graph(seed);
    Executor executor(cpu_backend());
    const auto want = graph.run(executor, {});
    Policy bare;  // as SUPERSONIC_EAGER plans: each node by itself, in memory of its own
    bare.fuse = bare.prepare = bare.reuse = bare.remat_cheap = false;
    expect_equal(graph.run(executor, bare), want, kTolerance, fmt::format("seed {} bare", seed));
    for (int bits = 0; bits < 4; ++bits) {
      Policy p;
      p.prepare = bits & 1;
      p.reuse = bits & 2;
      expect_equal(graph.run(executor, p), want, 0, fmt::format("seed {} bits {}", seed, bits));
    }
    for (int regions : {1, 3, 100}) {
      Policy p;
      p.checkpoint_regions = regions;
      expect_equal(graph.run(executor, p), want, kTolerance, fmt::format("seed {} regions {}", seed, regions));
      p.fuse = false;
      expect_equal(graph.run(executor, p), want, kTolerance, fmt::format("seed {} regions {} unfused", seed, regions));
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(RandomGraphs, EveryBudgetThatIsMetGivesTheSameResults) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    const RandomGraph graph(seed);
    Executor executor(cpu_backend());
    const auto want = graph.run(executor, {});
    const std::size_t least = least_budget([&] { return graph.build(); }, cpu_backend());
    Policy p;
    p.budget = least;
    expect_equal(graph.run(executor, p), want, kTolerance, fmt::format("seed {} budget {}", seed, least));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(RandomGraphs, TwoPlacesGiveTheSameBits) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    const RandomGraph graph(seed);
    Executor cpu(cpu_backend());
    TwoPlaceBackend backend(seed);
    for (const int regions : {0, 100}) {
      Policy p;
      p.checkpoint_regions = regions;
      const auto want = graph.run(cpu, p);
      Executor executor(backend);
      expect_equal(graph.run(executor, p), want, 0, fmt::format("seed {} regions {}", seed, regions));
    }
    Policy least;
    least.budget = least_budget([&] { return graph.build(); }, backend);
    Executor executor(backend);
    expect_equal(graph.run(executor, least), graph.run(cpu, {}), kTolerance, fmt::format("seed {} least budget", seed));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(RandomGraphs, TheDeviceUnderTestGivesTheResultsOfFp64) {
  if (!apart(test_backend())) GTEST_SKIP() << "set SUPERSONIC_TEST_DEVICE=cuda where a GPU is";
  for (unsigned seed = 1; seed <= 25; ++seed) {
    const RandomGraph graph(seed);
    Executor cpu(cpu_backend()), executor(test_backend());
    const auto want = RandomGraph(seed, DType::f64).run(cpu, {});
    Policy all_regions, least;
    all_regions.checkpoint_regions = 100;
    least.budget = least_budget([&] { return graph.build(); }, test_backend());
    for (const Policy& p : {Policy{}, all_regions, least}) expect_equal(graph.run(executor, p), want, kTolerance, fmt::format("seed {}", seed));
  }
}

}  // namespace
}  // namespace supersonic::testing
