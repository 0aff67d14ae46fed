// The tape, what a record refuses, evaluation and the plan cache.
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace supersonic::testing {
namespace {

StorageRef numbers(Shape shape, std::uint64_t seed = 1) { return random_storage({shape, DType::f32, nullptr}, seed, 1); }

TEST(Record, AnErrorNamesOperationShapesAndTheCallersLine) {
  const Tensor a = from_storage(numbers({2, 3})), b = from_storage(numbers({5, 4}));
  const int line = __LINE__ + 2;
  try {
    linear(a, b);
    FAIL();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("Gemm"), std::string::npos) << text;
    EXPECT_NE(text.find("f32(2, 3)"), std::string::npos) << text;
    EXPECT_NE(text.find("f32(5, 4)"), std::string::npos) << text;
    EXPECT_NE(text.find("record_test.cpp:" + std::to_string(line)), std::string::npos) << text;
  }
  EXPECT_TRUE(Tape::current().nodes().empty()) << "a refused record leaves nothing on the tape";
}

TEST(Record, AWriteToSomethingComputedIsRefused) {
  const StorageRef x = numbers({4});
  Executor executor(cpu_backend());
  try {
    Program::capture([&] {
      accumulate(exp(from_storage(x)), from_storage(x));
      return Tensors{};
    }, executor);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("must be a storage"), std::string::npos) << e.what();
  }
}

TEST(Record, ACaptureHasATapeOfItsOwn) {
  const StorageRef x = numbers({4});
  const Tensor outside = exp(from_storage(x));
  const auto before = Tape::current().nodes().size();
  Executor executor(cpu_backend());
  Program p = Program::capture([&] { return Tensors{scale(from_storage(x), 2)}; }, executor);
  EXPECT_EQ(Tape::current().nodes().size(), before);
  p.run();
  EXPECT_EQ(p.result(0).values<float>()[1], 2 * x->values<float>()[1]);
  EXPECT_EQ(read<float>(outside).size(), 4u);
}

TEST(Record, AThousandsOfNodesLongChainIsFreedWithoutRecursion) {
  Tensor x = from_storage(numbers({1}));
  for (int i = 0; i < 200000; ++i) x = permute(x, {0});
  Tape::current().nodes().clear();
  x = Tensor();  // a recursive destructor would overflow the stack here
  SUCCEED();
}

TEST(Eval, ResultsSurviveWhileTheirHandlesLive) {
  const StorageRef x = numbers({8});
  const Tensor a = scale(from_storage(x), 3), b = shift(a, 1);
  EXPECT_EQ(read<float>(b)[2], x->values<float>()[2] * 3 + 1);
  EXPECT_EQ(read<float>(a)[2], x->values<float>()[2] * 3);
  const Tensor c = mul(a, b);  // reads what an earlier evaluation made
  EXPECT_EQ(read<float>(c)[5], read<float>(a)[5] * read<float>(b)[5]);
}

TEST(Eval, TheSameStructureOverOtherStoragesHitsTheCache) {
  auto stretch = [](std::uint64_t seed, double factor) {
    const StorageRef x = numbers({4, 6}, seed);
    const Tensor y = linear(scale(from_storage(x), factor), from_storage(x));
    double want = 0;
    for (int k = 0; k < 6; ++k) want += factor * x->values<float>()[6 + k] * x->values<float>()[k];
    EXPECT_NEAR(read<float>(y)[4], want, 1e-4);
  };
  stretch(1, 2.5);
  const auto before = plan_cache_stats();
  stretch(2, 2.5);
  const auto same = plan_cache_stats();
  EXPECT_EQ(same.hits, before.hits + 1);
  EXPECT_EQ(same.misses, before.misses);
  stretch(3, 1.5);  // another attribute
  EXPECT_EQ(plan_cache_stats().misses, same.misses + 1);
}

TEST(Eval, WhichOfTheLeavesAreOneStorageIsPartOfTheStructure) {
  const StorageRef x = numbers({4}, 1), y = numbers({4}, 2);
  auto sum_of = [](const StorageRef& a, const StorageRef& b) { return read<float>(add(from_storage(a), from_storage(b), Where::current()))[1]; };
  EXPECT_EQ(sum_of(x, y), x->values<float>()[1] + y->values<float>()[1]);
  EXPECT_EQ(sum_of(x, x), x->values<float>()[1] * 2);
  EXPECT_EQ(sum_of(y, x), x->values<float>()[1] + y->values<float>()[1]);
}

TEST(Eval, AnIntermediateThatNobodyHeldIsAnErrorWithAName) {
  const StorageRef x = numbers({4});
  Tensor kept = from_storage(x);
  Ref<Node> inner;
  {
    const Tensor hidden = exp(kept);
    kept = log(hidden);
    inner = Ref<Node>(hidden.node());
  }
  inner = {};
  eval();
  const Tensor loss = sum(kept, 0);
  EXPECT_NO_THROW(read<float>(loss));
  const Tensor g = gradients(loss, std::span(&kept, 1))[0];
  EXPECT_EQ(read<float>(g)[0], 1.f);
}

TEST(Eval, AGradientGoesThroughWhatWasEvaluatedBefore) {
  const StorageRef x = numbers({4});
  const Tensor w = from_storage(x), y = mul(w, w), loss = sum(y, 0);
  read<float>(loss);
  const Tensor g = gradients(loss, std::span(&w, 1))[0];
  ASSERT_TRUE(g);
  for (int i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(read<float>(g)[i], 2 * x->values<float>()[i]);
}

TEST(Eval, AHeldViewOfAStorageStaysAnAlias) {
  const StorageRef x = numbers({4, 2});
  const Tensor row = slice(from_storage(x), 0, 1, 2);
  const float first = x->values<float>()[2];
  for (int k = 1; k <= 3; ++k) {
    accumulate(row, fill({1, 2}, DType::f32, 1));
    eval();
    EXPECT_FLOAT_EQ(x->values<float>()[2], first + static_cast<float>(k));
    EXPECT_FLOAT_EQ(read<float>(row)[0], first + static_cast<float>(k));
  }
}

}  // namespace
}  // namespace supersonic::testing
