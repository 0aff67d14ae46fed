// SUPERSONIC_EAGER, SUPERSONIC_SYNC and SUPERSONIC_VERIFY are read once a process: each test runs this program again with one set.
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>

#include "tiny_model.h"

namespace supersonic::testing {
namespace {

// Runs the named test of this program with an environment variable set; true where it passes.
bool passes_with(const char* variable, const std::string& test) {
  const pid_t child = fork();
  if (child == 0) {
    setenv(variable, "1", 1);
    setenv("SUPERSONIC_TEST_CHILD", "1", 1);
    const std::string filter = "--gtest_filter=" + test;
    execl("/proc/self/exe", "supersonic_tests", filter.c_str(), "--gtest_brief=1", static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
bool is_child() { return std::getenv("SUPERSONIC_TEST_CHILD") != nullptr; }

TEST(Environment, EagerRunsEachNodeAtOnceAndGradientsStillWork) {
  if (!is_child()) {
    EXPECT_TRUE(passes_with("SUPERSONIC_EAGER", "Environment.EagerRunsEachNodeAtOnceAndGradientsStillWork"));
    return;
  }
  ASSERT_TRUE(eager_mode());
  const StorageRef x = random_storage({Shape{6, 6}, DType::f32, nullptr}, 1, 0.5);
  const Tensor leaf = from_storage(x), y = exp(leaf);
  ASSERT_TRUE(y.node()->storage[0]) << "run when recorded";
  EXPECT_FLOAT_EQ(y.node()->storage[0]->values<float>()[3], std::exp(x->values<float>()[3]));
  const Tensor loss = sum(reshape(mul(y, y), {36}), 0);
  const Tensor g = gradients(loss, std::span(&leaf, 1))[0];
  ASSERT_TRUE(g.node()->storage[0]);
  for (int i = 0; i < 36; ++i) EXPECT_NEAR(read<float>(g)[i], 2 * std::exp(2 * x->values<float>()[i]), 1e-4);
  const float before = x->values<float>()[6];
  const Tensor row = slice(leaf, 0, 1, 2);
  accumulate(row, fill({1, 6}, DType::f32, 2));
  EXPECT_FLOAT_EQ(x->values<float>()[6], before + 2) << "an effect through a view reaches the storage at once";
  accumulate(row, fill({1, 6}, DType::f32, 2));
  EXPECT_FLOAT_EQ(x->values<float>()[6], before + 4);
}

TEST(Environment, EagerComputesTheModelAsPlansDo) {
  if (!is_child()) {
    EXPECT_TRUE(passes_with("SUPERSONIC_EAGER", "Environment.EagerComputesTheModelAsPlansDo"));
    return;
  }
  const TinyModel model(2);
  const auto start = model.state();
  Executor executor(cpu_backend());
  const Trace planned = train(model, executor, {}, 1);
  const Tensor loss = model.step()[0];  // on the thread's tape: node by node
  EXPECT_NEAR(read<float>(loss)[0], planned.losses[0], 1e-5 * planned.losses[0]);
  std::vector<double> a, b;
  const auto got = model.state();
  for (std::size_t i = 0; i + 4 <= got.size(); i += 4) {
    float x, y;
    std::memcpy(&x, got.data() + i, 4);
    std::memcpy(&y, planned.state.data() + i, 4);
    a.push_back(x);
    b.push_back(y);
  }
  EXPECT_LE(relative_error(a, b), 1e-4);
  model.restore(start);
}

TEST(Environment, VerifyProvesEveryPlanThatIsBound) {
  if (!is_child()) {
    EXPECT_TRUE(passes_with("SUPERSONIC_VERIFY", "Environment.VerifyProvesEveryPlanThatIsBound"));
    return;
  }
  const StorageRef x = random_storage({Shape{6, 6}, DType::f32, nullptr}, 1, 0.5);
  Executor executor(cpu_backend());
  const auto sound = plan_only([&] { return Tensors{linear(exp(from_storage(x)), from_storage(x))}; }, cpu_backend(), {});
  EXPECT_NO_THROW(BoundPlan(sound, executor));
  auto broken = std::make_shared<Plan>(*sound);
  for (const Step& s : broken->steps())
    for (const Location& at : s.in)
      if (at.kind == Location::arena) const_cast<Location&>(at).value += 1000;
  EXPECT_THROW(BoundPlan(broken, executor), Error);
}

TEST(Environment, SyncWaitsAfterEachStepAndNamesTheOneThatFails) {
  if (!is_child()) {
    EXPECT_TRUE(passes_with("SUPERSONIC_SYNC", "Environment.SyncWaitsAfterEachStepAndNamesTheOneThatFails"));
    return;
  }
  struct Counting : Backend {
    Backend& inner = cpu_backend();
    int syncs = 0;
    const char* name() const override { return inner.name(); }
    Place compute_place() const override { return inner.compute_place(); }
    std::span<const Kernel* const> kernels() const override { return inner.kernels(); }
    const Kernel* chain_kernel(const ChainProgram& c) override { return inner.chain_kernel(c); }
    std::unique_ptr<Arena> arena(Place p) override { return inner.arena(p); }
    Lane& lane(LaneKind k) override { return inner.lane(k); }
    int events() const override { return 0; }
    void reserve_events(int) override {}
    void copy(void* to, Place a, const void* from, Place b, std::size_t n, Lane& l) override { inner.copy(to, a, from, b, n, l); }
    void signal(Lane&, int) override {}
    void wait(Lane&, int) override {}
    void sync() override {
      if (++syncs == 2) throw Error("the device reports an error");
    }
    int threads() const override { return inner.threads(); }
  } backend;
  const StorageRef x = random_storage({Shape{6, 6}, DType::f32, nullptr}, 1, 0.5);
  Executor executor(backend);
  Program p = Program::capture([&] { return Tensors{rms_norm(linear(from_storage(x), from_storage(x)), slice(reshape(from_storage(x), {36}), 0, 0, 6), 1e-5f)}; }, executor);
  try {
    p.run();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("RmsNorm"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("environment_test.cpp"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace supersonic::testing
