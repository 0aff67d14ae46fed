// The passes between a recorded stretch and its steps: order of effects, folding, chain fusion, prepared forms, views, results.
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace supersonic::testing {
namespace {

StorageRef numbers(Shape shape, std::uint64_t seed = 1, DType type = DType::f32) { return random_storage({shape, type, nullptr}, seed, 1); }

std::shared_ptr<const Plan> plan_of(const std::function<Tensors()>& fn, const Policy& policy = {}) {
  auto plan = plan_only(fn, cpu_backend(), policy);
  plan->verify();
  return plan;
}
int count(const Plan& plan, std::string_view kernel) {
  int n = 0;
  for (const auto& s : plan.steps()) n += s.kernel && s.kernel->name == kernel;
  return n;
}
int forms(const Plan& plan) {
  int n = 0;
  for (const auto& s : plan.steps()) n += s.form != nullptr;
  return n;
}
Policy unfused() {
  Policy p;
  p.fuse = false;
  return p;
}
void expect_same(const std::function<Tensors()>& fn, double tolerance = 0) {
  Policy bare = unfused();
  bare.prepare = bare.reuse = false;
  const auto a = run(fn), b = run(fn, bare);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_LE(relative_error(a[i], b[i]), tolerance) << "result " << i;
}

TEST(Plan, WhatNobodyReadsIsNotRun) {
  const StorageRef x = numbers({8, 8});
  EXPECT_EQ(plan_of([&] {
    const Tensor t = from_storage(x);
    linear(t, t);
    return Tensors{linear(t, exp(t))};
  })->steps().size(), 2u);
}

TEST(Plan, AReadBeforeAWriteSeesTheOldValueAndOneAfterItTheNew) {
  const StorageRef x = numbers({16});
  const std::vector<float> old(x->values<float>().begin(), x->values<float>().end());
  Executor executor(test_backend());
  for (bool fuse : {true, false}) {
    std::copy(old.begin(), old.end(), x->values<float>().begin());
    Policy policy;
    policy.fuse = fuse;
    Program p = Program::capture([&] {
      const Tensor t = from_storage(x), before = shift(scale(t, 2), 1);
      accumulate(t, fill({16}, DType::f32, 10));
      const Tensor between = shift(scale(t, 2), 1);
      assign(slice(t, 0, 0, 8), slice(before, 0, 8, 16));
      return Tensors{before, between, scale(t, 1)};
    }, executor, policy);
    p.plan().verify();
    p.run();
    for (int i = 0; i < 16; ++i) {
      EXPECT_EQ(p.result(0).values<float>()[i], old[i] * 2 + 1);
      EXPECT_EQ(p.result(1).values<float>()[i], (old[i] + 10) * 2 + 1);
      EXPECT_EQ(p.result(2).values<float>()[i], i < 8 ? old[i + 8] * 2 + 1 : old[i] + 10);
    }
  }
}

TEST(Fold, SumsOfProductsAreOneProduct) {
  const StorageRef x = numbers({9, 16}, 1), w = numbers({12, 16}, 2), a = numbers({4, 16}, 3), b = numbers({12, 4}, 4);
  auto fn = [&] {
    const Tensor t = from_storage(x);
    return Tensors{add(linear(t, from_storage(w)), linear(linear(t, from_storage(a)), from_storage(b)), Where::current())};
  };
  EXPECT_EQ(plan_of(fn)->steps().size(), 2u);
  EXPECT_EQ(plan_of(fn, unfused())->steps().size(), 4u);
  expect_same(fn, 1e-6);
}

TEST(Fold, AProductThatSomebodyElseReadsStays) {
  const StorageRef x = numbers({8, 8}, 1), w = numbers({8, 8}, 2);
  auto fn = [&] {
    const Tensor t = from_storage(x), p = linear(t, from_storage(w));
    return Tensors{add(p, linear(p, from_storage(w)), Where::current()), p};
  };
  EXPECT_EQ(count(*plan_of(fn), "cpu.gemm"), 2);
  expect_same(fn, 1e-6);
}

TEST(Fold, AnAccumulatedProductGoesStraightToItsTarget) {
  const StorageRef x = numbers({8, 6}, 1), target = numbers({8, 8}, 2);
  const auto start = bytes_in(*target);
  auto fn = [&] {
    const Tensor t = from_storage(x);
    accumulate(from_storage(target), linear(t, t));
    return Tensors{scale(from_storage(target), 1)};
  };
  EXPECT_EQ(count(*plan_of(fn), "cpu.gemm_accumulate"), 1);
  const auto folded = run(fn)[0];
  std::memcpy(target->as<void>(), start.data(), start.size());
  EXPECT_LE(relative_error(run(fn, unfused())[0], folded), 1e-6);
}

TEST(Fold, WhatGoesPastANormJoinsItsGradient) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const StorageRef x = numbers({7, 97}, 1, type), w = numbers({97}, 2), dy = numbers({7, 97}, 3, type), past = numbers({7, 97}, 4, type);
    for (const bool first : {false, true})
      for (const bool weight : {false, true}) {
        auto fn = [&] {
          const Tensor in = from_storage(x), scales = from_storage(w);
          const Tensor y[] = {rms_norm(in, scales, 1e-5f)}, cotangents[] = {from_storage(dy)}, wrt[] = {in, weight ? scales : Tensor()};
          const Tensors g = gradients(y, cotangents, wrt);
          const Tensor base = from_storage(past);
          Tensors results = {first ? add(base, g[0]) : add(g[0], base)};
          if (weight) results.push_back(g[1]);
          return results;
        };
        EXPECT_EQ(count(*plan_of(fn), "cpu.rms_norm_grad_add"), !weight);
        EXPECT_EQ(count(*plan_of(fn), "cpu.rms_norm_grad"), weight);
        expect_same(fn, type == DType::bf16 ? 4e-3 : 1e-6);  // rounded once when folded, else twice
      }
  }
}

TEST(Fold, AScaledProductOfFloatsIsOneProduct) {
  const StorageRef x = numbers({8, 6}, 1), w = numbers({5, 6}, 2), b = numbers({8, 5}, 3), target = numbers({8, 8}, 4);
  auto down = [&] { return scale(linear(from_storage(x), from_storage(w)), 0.25); };
  auto fn = [&] { return Tensors{linear(down(), from_storage(b))}; };
  EXPECT_EQ(count(*plan_of(fn), "cpu.gemm"), 2);
  EXPECT_EQ(plan_of(fn)->steps().size(), 2u);
  expect_same(fn, 1e-6);
  const auto start = bytes_in(*target);
  auto twice = [&] {
    accumulate(from_storage(target), scale(scale(linear(down(), from_storage(b)), 2), -1.5));
    return Tensors{scale(from_storage(target), 1)};
  };
  EXPECT_EQ(count(*plan_of(twice), "cpu.gemm_accumulate"), 1);
  const auto folded = run(twice)[0];
  std::memcpy(target->as<void>(), start.data(), start.size());
  EXPECT_LE(relative_error(run(twice, unfused())[0], folded), 1e-6);
}

TEST(Fold, ProductsOfDifferentScalesStayApart) {
  const StorageRef x = numbers({8, 6}, 1), w = numbers({5, 6}, 2);
  auto fn = [&] {
    const Tensor a = scale(linear(from_storage(x), from_storage(w)), 0.25), b = linear(from_storage(x), from_storage(w));
    return Tensors{add(a, b, Where::current())};
  };
  EXPECT_EQ(count(*plan_of(fn), "cpu.gemm"), 2);
  expect_same(fn, 1e-6);
}

TEST(Fold, NotAcrossAWriteToAnOperand) {
  const StorageRef x = numbers({8, 8}, 1), y = numbers({8, 8}, 2);
  const auto start = bytes_in(*x);
  auto fn = [&] {
    const Tensor t = from_storage(x), p = linear(t, from_storage(y));
    assign(t, from_storage(y));
    return Tensors{add(p, linear(t, from_storage(y)), Where::current())};
  };
  const auto folded = run(fn)[0];
  std::memcpy(x->as<void>(), start.data(), start.size());
  EXPECT_LE(relative_error(run(fn, unfused())[0], folded), 1e-6);
}

TEST(Fuse, ARunOfElementwiseWorkIsOneStep) {
  const StorageRef x = numbers({5, 33}), row = numbers({33}, 2);
  auto fn = [&] {
    const Tensor t = from_storage(x);
    return Tensors{silu(add(mul(t, from_storage(row)), exp(scale(t, 0.5)), Where::current()))};
  };
  EXPECT_EQ(plan_of(fn)->steps().size(), 1u);
  EXPECT_EQ(plan_of(fn, unfused())->steps().size(), 5u);
  expect_same(fn);
}

TEST(Fuse, LongRunsAreCutAtTheLimits) {
  const StorageRef x = numbers({40});
  auto fn = [&] {
    Tensor t = from_storage(x);
    for (int i = 0; i < 150; ++i) t = shift(scale(t, 0.99), 0.01);
    return Tensors{t};
  };
  const auto plan = plan_of(fn);
  EXPECT_EQ(plan->steps().size(), 5u);  // 300 instructions, 64 a chain
  for (const auto& s : plan->steps()) EXPECT_LE(s.chain->instrs.size(), static_cast<std::size_t>(kMaxChainInstructions));
  expect_same(fn);
}

TEST(Fuse, ManyLoadsAreCutAtTheLimit) {
  std::vector<StorageRef> x;
  for (int i = 0; i < 40; ++i) x.push_back(numbers({40}, i + 1));
  auto fn = [&] {
    Tensor t = from_storage(x[0]);
    for (int i = 1; i < 40; ++i) t = add(t, from_storage(x[i]), Where::current());
    return Tensors{t};
  };
  const auto plan = plan_of(fn);
  for (const auto& s : plan->steps()) EXPECT_LE(s.chain->loads, kMaxChainLoads);
  EXPECT_LE(plan->steps().size(), 4u);
  expect_same(fn);
}

TEST(Fuse, MoreThanFourStoresAreSplit) {
  const StorageRef x = numbers({40});
  auto fn = [&] {
    Tensors out;
    Tensor t = from_storage(x);
    for (int i = 0; i < 7; ++i) out.push_back(t = scale(exp(scale(t, 0.1)), 0.5));
    return out;
  };
  const auto plan = plan_of(fn);
  for (const auto& s : plan->steps()) EXPECT_LE(s.out.size(), static_cast<std::size_t>(kMaxOutputs));
  expect_same(fn);
}

TEST(Fuse, ABroadcastOperandIsNotOverwrittenInPlace) {
  const StorageRef x = numbers({6, 6});
  auto fn = [&] {
    const Tensor t = exp(from_storage(x));  // dies in the chain below, which also reads another view of it
    return Tensors{linear(add(t, permute(t, {1, 0}), Where::current()), from_storage(x)),
                   linear(add(t, expand(slice(t, 0, 0, 1), {6, 6}), Where::current()), from_storage(x))};
  };
  expect_same(fn, 1e-6);
}

TEST(Fuse, MixedTypesRoundAtStoresAndWholeNumbersInBetween) {
  const StorageRef x = numbers({64}), h = numbers({64}, 2, DType::bf16);
  expect_same([&] { return Tensors{mul(from_storage(x), cast(from_storage(h), DType::f32)), cast(from_storage(h), DType::f64)}; });
  expect_same([&] { return Tensors{cast(cast(scale(from_storage(x), 5), DType::i32), DType::f32)}; });
}

int stores(const Plan& plan) {
  int most = 0;
  for (const auto& s : plan.steps()) most = std::max(most, s.chain ? static_cast<int>(s.out.size()) : 0);
  return most;
}

TEST(Fuse, SiblingsThatReadTheSameOperandsAreOneStep) {
  const StorageRef x = numbers({6, 40}), y = numbers({6, 40}, 2), z = numbers({6, 40}, 3);
  auto fn = [&] {
    const Tensor a = from_storage(x), b = from_storage(y);
    return Tensors{mul(silu(a), b), exp(scale(b, 0.5)), sub(a, b)};
  };
  EXPECT_EQ(plan_of(fn)->steps().size(), 1u);
  EXPECT_EQ(stores(*plan_of(fn)), 3);
  expect_same(fn);
  auto apart = [&] { return Tensors{exp(from_storage(x)), silu(from_storage(z))}; };  // nothing is read twice
  EXPECT_EQ(plan_of(apart)->steps().size(), 2u);
  expect_same(apart);
}

TEST(Fuse, SiblingsOfABroadcastRowAloneStayApart) {
  const StorageRef x = numbers({6, 40}), y = numbers({6, 40}, 2), row = numbers({40}, 3);
  auto fn = [&] { return Tensors{mul(from_storage(x), from_storage(row)), mul(from_storage(y), from_storage(row))}; };
  EXPECT_EQ(plan_of(fn)->steps().size(), 2u);
  expect_same(fn);
}

TEST(Fuse, ASiblingThatNeedsTheOtherStaysBehindIt) {
  const StorageRef x = numbers({16, 16}), w = numbers({16, 16}, 2);
  auto fn = [&] {
    const Tensor t = from_storage(x);
    const Tensor product = linear(exp(t), from_storage(w));
    return Tensors{mul(product, t)};
  };
  EXPECT_EQ(plan_of(fn)->steps().size(), 3u);
  expect_same(fn, 1e-6);
}

TEST(Fuse, SiblingsAreNotJoinedAcrossAWriteToWhatTheyRead) {
  const StorageRef x = numbers({16, 16}), y = numbers({16, 16}, 2);
  const auto start = bytes_in(*x);
  auto fn = [&] {
    const Tensor s = from_storage(x), before = exp(s);
    accumulate(s, from_storage(y));
    return Tensors{before, silu(from_storage(x))};
  };
  EXPECT_EQ(plan_of(fn)->steps().size(), 3u);
  const auto fused = run(fn);
  std::memcpy(x->as<void>(), start.data(), start.size());
  const auto bare = run(fn, unfused());
  EXPECT_EQ(fused[0], bare[0]);
  EXPECT_EQ(fused[1], bare[1]);
}

// The recomputed product of a gate goes into one step with the gradients, before the product that reads it, and all three results
// take the places of what died.
TEST(Fuse, TheGradientOfAGateIsOneStepWithItsRecomputation) {
  const StorageRef x = numbers({32, 48}), w = numbers({48, 48}, 2), v = numbers({48, 48}, 3), g = numbers({32, 48}, 4);
  auto fn = [&] {
    const Tensor gate = linear(from_storage(x), from_storage(w)), up = linear(from_storage(x), from_storage(v));
    const Tensor again = swiglu(gate, up), dy = linear(from_storage(g), from_storage(w));
    const Tensor reader = linear(again, from_storage(v));
    const Tensor dup = mul(dy, silu(gate)), dgate = record1(SiluGrad{}, {gate, mul(dy, up)}, Where::current());
    return Tensors{reader, linear(dgate, from_storage(w)), linear(dup, from_storage(w))};
  };
  const auto plan = plan_of(fn);
  EXPECT_EQ(count(*plan, "cpu.chain"), 1);
  EXPECT_EQ(stores(*plan), 3);
  for (const auto& s : plan->steps()) {
    if (!s.chain) continue;
    for (const auto& out : s.out)
      EXPECT_TRUE(std::any_of(s.in.begin(), s.in.end(), [&](const Location& in) { return in.offset == out.offset; }));
  }
  expect_same(fn, 1e-6);
}

TEST(Fuse, SiblingsStayApartWhereTheyWouldLiveLonger) {
  const StorageRef x = numbers({64, 64}), w = numbers({64, 64}, 2);
  auto fn = [&] {
    const Tensor t = linear(from_storage(x), from_storage(w));
    const Tensor first = linear(exp(t), from_storage(w));
    const Tensor second = linear(silu(t), from_storage(w));  // silu(t) would wait through the product before it, and t with it
    return Tensors{linear(t, from_storage(w)), first, second};
  };
  EXPECT_EQ(count(*plan_of(fn), "cpu.chain"), 2);
  EXPECT_EQ(stores(*plan_of(fn)), 1);
  expect_same(fn, 1e-6);
}

TEST(Prepare, ThreeReadersShareOneSetOfInt8Rows) {
  const StorageRef x = numbers({16, 64}), w[3] = {random_storage({Shape{32, 64}, DType::quant, find_format("q8_0")}, 2, 1),
                                                  random_storage({Shape{32, 64}, DType::quant, find_format("q4_0")}, 3, 1),
                                                  random_storage({Shape{16, 64}, DType::quant, find_format("q4_1")}, 4, 1)};
  auto fn = [&] {
    const Tensor t = from_storage(x);
    return Tensors{linear(t, from_storage(w[0])), linear(t, from_storage(w[1])), linear(t, from_storage(w[2]))};
  };
  Policy policy;
  policy.compute = Compute::int8;
  EXPECT_EQ(forms(*plan_of(fn, policy)), 1);
  Policy each = policy;
  each.prepare = false;
  EXPECT_EQ(forms(*plan_of(fn, each)), 0);
  const auto shared = run(fn, policy), alone = run(fn, each), exact = run(fn);
  for (int i = 0; i < 3; ++i) {
    EXPECT_LE(relative_error(shared[i], alone[i]), 1e-2);
    EXPECT_LE(relative_error(shared[i], exact[i]), 2e-2);
  }
}

TEST(Prepare, AFormOfAStorageIsMadeAnewAfterAWrite) {
  const StorageRef x = numbers({16, 64}), y = numbers({16, 64}, 5), w = random_storage({Shape{32, 64}, DType::quant, find_format("q8_0")}, 2, 1);
  const auto start = bytes_in(*x);
  Policy policy;
  policy.compute = Compute::int8;
  auto fn = [&] {
    const Tensor t = from_storage(x), before = linear(t, from_storage(w));
    assign(t, from_storage(y));
    return Tensors{before, linear(t, from_storage(w))};
  };
  EXPECT_EQ(forms(*plan_of(fn, policy)), 2);
  const auto got = run(fn, policy);
  std::memcpy(x->as<void>(), start.data(), start.size());
  const auto want = run(fn);
  for (int i = 0; i < 2; ++i) EXPECT_LE(relative_error(got[i], want[i]), 2e-2);
}

TEST(Views, ReachTheirBytesWithoutACopyWhereStridesAllowIt) {
  const StorageRef x = numbers({4, 6, 5});
  auto value = [&](std::int64_t i, std::int64_t j, std::int64_t k) { return static_cast<double>(x->values<float>()[(i * 6 + j) * 5 + k]); };
  auto fn = [&] {
    const Tensor t = from_storage(x);
    return Tensors{permute(slice(t, 1, 2, 5), {2, 0, 1}), reshape(permute(t, {1, 0, 2}), {24, 5}), reshape(t, {2, 12, 5}),
                   expand(slice(t, 1, 3, 4), {4, 3, 5})};
  };
  const auto got = run(fn);
  std::size_t at[4] = {};
  for (int k = 0; k < 5; ++k)
    for (int i = 0; i < 4; ++i)
      for (int j = 2; j < 5; ++j) EXPECT_EQ(got[0][at[0]++], value(i, j, k));
  for (int j = 0; j < 6; ++j)
    for (int i = 0; i < 4; ++i)
      for (int k = 0; k < 5; ++k) EXPECT_EQ(got[1][at[1]++], value(i, j, k));
  for (int i = 0; i < 4; ++i)
    for (int r = 0; r < 3; ++r)
      for (int k = 0; k < 5; ++k) EXPECT_EQ(got[3][at[3]++], value(i, 3, k));
  // Only the reshape of permuted data needs a dense copy first.
  EXPECT_EQ(plan_of(fn)->steps().size(), 5u);
}

TEST(Roots, AViewALeafAndOneValueTwice) {
  const StorageRef x = numbers({4, 6});
  auto fn = [&] {
    const Tensor t = from_storage(x), y = exp(t);
    return Tensors{permute(y, {1, 0}), t, y, y, identity(y)};
  };
  const auto got = run(fn);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 6; ++j) {
      EXPECT_EQ(got[0][j * 4 + i], got[2][i * 6 + j]);
      EXPECT_EQ(got[1][i * 6 + j], static_cast<double>(x->values<float>()[i * 6 + j]));
    }
  EXPECT_EQ(got[2], got[3]);
  EXPECT_EQ(got[2], got[4]);
}

TEST(Plan, FusionAndPreparationChangeTheModelsPlanAndNotItsResult) {
  const TinyModel model(2);
  auto fn = [&] { return model.step(); };
  Policy base, bare;
  base.compute = bare.compute = Compute::fp32;
  bare.fuse = false;
  EXPECT_LT(plan_of(fn, base)->steps().size(), plan_of(fn, bare)->steps().size());
  Executor executor(cpu_backend());
  const Trace a = train(model, executor, base), b = train(model, executor, bare);
  for (std::size_t i = 0; i < a.losses.size(); ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 1e-5 * std::abs(a.losses[i]));
  base.compute = bare.compute = Compute::int8;
  bare.fuse = true;
  bare.prepare = false;
  EXPECT_NE(plan_of(fn, base)->steps().size(), plan_of(fn, bare)->steps().size());
}

TEST(Plan, ExplainNamesEveryStepWithItsLine) {
  const TinyModel model(1);
  const auto plan = plan_of([&] { return model.step(); });
  const std::string text = plan->explain();
  EXPECT_EQ(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')), plan->steps().size() + 2);
  EXPECT_NE(text.find("cpu.attention"), std::string::npos);
  EXPECT_NE(text.find("tiny_model.h:"), std::string::npos);
}

}  // namespace
}  // namespace supersonic::testing
