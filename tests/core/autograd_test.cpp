// The gradient sweep on whole graphs, against finite differences in fp64.
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace supersonic::testing {
namespace {

StorageRef numbers(Shape shape, std::uint64_t seed) { return random_storage({shape, DType::f64, nullptr}, seed, 0.7); }

using Function = std::function<Tensor(const Tensors&)>;  // scalar in fp64

void expect_gradients(const Function& f, const std::vector<StorageRef>& in) {
  auto leaves = [&] {
    Tensors t;
    for (const auto& s : in) t.push_back(from_storage(s));
    return t;
  };
  const auto g = run([&] {
    const Tensors x = leaves();
    return gradients(f(x), x);
  });
  for (std::size_t k = 0; k < in.size(); ++k) {
    double* x = in[k]->as<double>();
    for (std::int64_t i = 0; i < in[k]->spec.numel(); ++i) {
      const double saved = x[i], h = 1e-5;
      auto at = [&](double v) {
        x[i] = v;
        return run([&] { return Tensors{f(leaves())}; })[0][0];
      };
      const double slope = (at(saved + h) - at(saved - h)) / (2 * h);
      x[i] = saved;
      EXPECT_NEAR(g[k][i], slope, 1e-6 * (1 + std::abs(slope))) << "input " << k << " element " << i;
    }
  }
}
Tensor total(Tensor t) { return sum(reshape(t, {t.numel()}), 0); }

TEST(Autograd, AValueWithSeveralReadersSumsTheirGradients) {
  expect_gradients([](const Tensors& x) {
    const Tensor h = exp(x[0]), g = mul(h, x[1]);
    return total(add(mul(g, h), sigmoid(sub(g, h)), Where::current()));
  }, {numbers({2, 3}, 1), numbers({2, 3}, 2)});
}

// A weight that is read in two places, as a tied head is: each part comes when it is made, and none waits for the other.
TEST(Autograd, ASharedWeightsGradientComesInParts) {
  const StorageRef w = numbers({4, 3}, 1), x = numbers({5, 3}, 2);
  const auto loss = [&] {
    const Tensor h = exp(linear(from_storage(x), from_storage(w)));
    return total(mul(linear(h, reshape(from_storage(w), {3, 4})), from_storage(x)));
  };
  const auto whole = run([&] { return gradients(loss(), std::vector{from_storage(w)}); });
  const auto parts = run([&] {
    Tensors made;
    const Tensor wrt[] = {from_storage(w)};
    backward(loss(), wrt, [&](int, const Tensor& g) { made.push_back(g); });
    return made;
  });
  ASSERT_EQ(parts.size(), 2u);
  for (std::size_t i = 0; i < whole[0].size(); ++i) EXPECT_NEAR(parts[0][i] + parts[1][i], whole[0][i], 1e-12);
}

TEST(Autograd, ThroughBroadcastsViewsAndProducts) {
  expect_gradients([](const Tensors& x) {
    const Tensor a = permute(reshape(x[0], {2, 3, 2}), {1, 0, 2});  // (3,2,2)
    const Tensor p = batch_matmul(a, expand(reshape(x[1], {1, 2, 4}), {3, 2, 4}));
    return total(mul(silu(add(p, x[2], Where::current())), slice(pad(p, 2, 1, 0), 2, 0, 4)));
  }, {numbers({4, 3}, 1), numbers({2, 4}, 2), numbers({4}, 3)});
}

TEST(Autograd, ThroughBothOutputsOfAnOperation) {
  expect_gradients([](const Tensors& x) {
    const Tensors y = record(RmsNorm{1e-3f}, {x[0], x[1]}, Where::current());
    return add(total(mul(y[0], y[0])), total(exp(y[1])), Where::current());
  }, {numbers({3, 4}, 1), numbers({4}, 2)});
}

TEST(Autograd, AnInnerValueAndTheLeafBehindItBothGetGradients) {
  const StorageRef x = numbers({3}, 1);
  const auto g = run([&] {
    const Tensor leaf = from_storage(x), inner = exp(leaf), loss = total(mul(inner, inner));
    const Tensor wrt[] = {inner, leaf, inner};
    return gradients(loss, wrt);
  });
  for (int i = 0; i < 3; ++i) {
    const double e = std::exp(x->values<double>()[i]);
    EXPECT_NEAR(g[0][i], 2 * e, 1e-12);
    EXPECT_NEAR(g[1][i], 2 * e * e, 1e-12);
    EXPECT_EQ(g[2][i], g[0][i]) << "asked for twice, given twice";
  }
}

TEST(Autograd, TwoLeavesOfOneStorageAreOneParameter) {
  const StorageRef x = numbers({3}, 1);
  const auto g = run([&] {
    const Tensor a = from_storage(x), b = from_storage(x);
    return gradients(total(mul(a, exp(b))), std::span(&a, 1));
  });
  for (int i = 0; i < 3; ++i) {
    const double v = x->values<double>()[i];
    EXPECT_NEAR(g[0][i], (1 + v) * std::exp(v), 1e-12);
  }
}

TEST(Autograd, WhatTheLossDoesNotDependOnHasNoGradient) {
  const Tensor a = from_storage(numbers({3}, 1)), b = from_storage(numbers({3}, 2));
  const Tensor wrt[] = {a, b};
  const Tensors g = gradients(total(exp(a)), wrt);
  EXPECT_TRUE(g[0]);
  EXPECT_FALSE(g[1]);
  Tape::current().nodes().clear();
}

TEST(Autograd, TheSinkSeesLastLayersFirstAndEachOnce) {
  const TinyModel model(3);
  TapeScope scope;
  Tensors wrt;
  for (const auto& y : model.layers) wrt.push_back(from_storage(y.a));
  std::vector<int> order;
  std::vector<std::uint64_t> seqs;
  backward(model.loss(), wrt, [&](int i, const Tensor& g) {
    order.push_back(i);
    seqs.push_back(g.node()->seq);
    EXPECT_EQ(g.node()->seq, Tape::current().nodes().back()->seq) << "the gradient is the last thing recorded";
  });
  EXPECT_EQ(order, (std::vector<int>{2, 1, 0}));
}

TEST(Autograd, ANonScalarLossIsRefused) {
  const Tensor x = from_storage(numbers({3}, 1));
  EXPECT_THROW(gradients(exp(x), std::span(&x, 1)), Error);
  Tape::current().nodes().clear();
}

}  // namespace
}  // namespace supersonic::testing
