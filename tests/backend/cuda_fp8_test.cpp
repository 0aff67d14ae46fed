// Products of frozen weights in E4M3 (--compute fp8) on the GPU. Oracle: fp64 over operands that
// this file rounds by the definition: to the nearest of E4M3's numbers times a power of two, one
// for 256 numbers of a row of X, one for 256 along K by 128 of W, the least under which the largest
// is at most 448. Training beside bf16. Skipped where no GPU has such products.
#include <gtest/gtest.h>

#include "../core/tiny_model.h"
#include "../infer/random_model.h"
#include "ops/dequantize.h"
#include "text/dataset_pack.h"
#include "train/trainer.h"

namespace supersonic::testing {
namespace {

Backend& gpu() { return device_backend("cuda"); }

class CudaFp8 : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_gpus(&why).empty()) GTEST_SKIP() << why;
    if (!gpu().computes(Compute::fp8)) GTEST_SKIP() << "the GPU has no such products";
  }
};

// A matrix as the product sees it: rows of K.
struct Matrix {
  std::int64_t rows, k;
  std::vector<double> v;
  double& at(std::int64_t r, std::int64_t c) { return v[static_cast<std::size_t>(r * k + c)]; }
};

double e4m3(double x) {
  if (x == 0) return 0;
  const double step = std::ldexp(1, std::max(std::ilogb(x), -6) - 3);
  return std::clamp(std::nearbyint(x / step) * step, -448.0, 448.0);
}

// Rounds in place, `rows` rows by `length` columns at a time.
void round_groups(Matrix& m, std::int64_t rows, std::int64_t length) {
  for (std::int64_t r0 = 0; r0 < m.rows; r0 += rows)
    for (std::int64_t k0 = 0; k0 < m.k; k0 += length) {
      const std::int64_t r1 = std::min(r0 + rows, m.rows),
                         k1 = std::min<std::int64_t>(k0 + length, m.k);
      double most = 0;
      for (std::int64_t r = r0; r < r1; ++r)
        for (std::int64_t k = k0; k < k1; ++k) most = std::max(most, std::abs(m.at(r, k)));
      int e = -126;
      while (std::ldexp(448, e) < most) ++e;
      for (std::int64_t r = r0; r < r1; ++r)
        for (std::int64_t k = k0; k < k1; ++k)
          m.at(r, k) = std::ldexp(e4m3(std::ldexp(m.at(r, k), -e)), e);
    }
}

// A stored matrix of any type, turned if its rows are K.
Matrix matrix_of(const StorageRef& s, bool turned) {
  const std::int64_t rows = s->spec.shape[0], cols = s->spec.shape[1];
  std::vector<double> v;
  if (s->spec.format)
    v = run([&] { return Tensors{dequantize(from_storage(s), DType::f32)}; }, {}, cpu_backend())[0];
  else
    for (std::int64_t i = 0; i < rows * cols; ++i) v.push_back(get(*s, i));
  if (!turned) return {rows, cols, v};
  Matrix m{cols, rows, std::vector<double>(v.size())};
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) m.at(c, r) = v[static_cast<std::size_t>(r * cols + c)];
  return m;
}

// bf16 numbers whose size changes from one group of 128 to the next, by up to 2^4.
StorageRef uneven(Shape shape, std::uint64_t seed) {
  StorageRef s = Storage::make({shape, DType::bf16, nullptr});
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    const std::int64_t row = i / shape[1], group = i % shape[1] / 128;
    const double size = std::ldexp(1, static_cast<int>((row / 3 + 2 * group + row / 128) % 5) - 2);
    put(*s, i,
        static_cast<float>(
            bf16(static_cast<float>(size * gaussian(seed, static_cast<std::uint64_t>(i))))));
  }
  return s;
}

struct Term {
  std::int64_t k;
  bool turned;
  const char* weight;  // a format, "bf16", or "adapter": f32, which stays bf16 in the products
};

struct Product {
  Gemm attributes{static_cast<std::int32_t>(DType::bf16), 0, 0, 0};
  std::vector<StorageRef> in;
  Product(std::int64_t m, std::int64_t n, const std::vector<Term>& terms) {
    for (std::size_t t = 0; t < terms.size(); ++t) {
      const Term& e = terms[t];
      const std::string_view weight = e.weight;
      const Shape w = e.turned ? Shape{e.k, n} : Shape{n, e.k};
      in.push_back(uneven({m, e.k}, 2 * t + 1));
      in.push_back(weight == "adapter" || weight == "bf16"
                       ? uneven(w, 2 * t + 2)
                       : random_storage({w, DType::quant, find_format(weight)}, 2 * t + 2, 1));
      if (weight == "adapter") in.back() = in_f32(*in.back());
      attributes.trans_w = static_cast<std::uint16_t>(attributes.trans_w | e.turned << t);
    }
  }
  static StorageRef in_f32(const Storage& s) {
    StorageRef wide = Storage::make({s.spec.shape, DType::f32, nullptr});
    for (std::int64_t i = 0; i < s.spec.numel(); ++i) put(*wide, i, get(s, i));
    return wide;
  }

  std::vector<double> on_gpu(const std::vector<StorageRef>& here, std::string* plan = nullptr,
                             bool prepare = true) const {
    Policy policy;
    policy.compute = Compute::fp8;
    policy.prepare = prepare;
    auto record_it = [&] {
      Tensors t;
      for (const auto& s : here) t.push_back(from_storage(s));
      return record(op<Gemm>(), Attrs::of(attributes), t, Where::current());
    };
    if (plan) *plan = plan_only(record_it, gpu(), policy)->explain();
    return run(record_it, policy, gpu())[0];
  }

  // In fp64; rounded: frozen weights and what they are multiplied with become codes, with a scale
  // for so many numbers along K.
  std::vector<double> want(bool rounded, std::int64_t length = 256) const {
    std::vector<double> y;
    for (std::size_t t = 0; t < in.size(); t += 2) {
      Matrix x = matrix_of(in[t], false), w = matrix_of(in[t + 1], attributes.trans_w >> t / 2 & 1);
      if (rounded && in[t + 1]->spec.dtype != DType::f32) {
        for (double& v : w.v) v = static_cast<float>(bf16(static_cast<float>(v)));
        round_groups(x, 1, length), round_groups(w, 128, length);
      }
      y.resize(static_cast<std::size_t>(x.rows * w.rows));
      for (std::int64_t i = 0; i < x.rows; ++i)
        for (std::int64_t j = 0; j < w.rows; ++j) {
          const double *a = x.v.data() + i * x.k, *b = w.v.data() + j * x.k;
          double sum = 0;
          for (std::int64_t k = 0; k < x.k; ++k) sum += a[k] * b[k];
          y[static_cast<std::size_t>(i * w.rows + j)] += sum;
        }
    }
    return y;
  }
};

// One rounding of the result to bf16, and sums over 256 that keep 13 bits behind the largest.
constexpr double kRounding = 4e-3;

void expect_rounded_product(std::int64_t m, std::int64_t n, const std::vector<Term>& terms) {
  SCOPED_TRACE(fmt::format("{} x {} x {}{} {}, {} terms", m, n, terms[0].k,
                           terms[0].turned ? " turned" : "", terms[0].weight, terms.size()));
  const Product p(m, n, terms);
  const std::vector<double> want = p.want(true);
  for (const bool aligned : {true, false}) {
    std::vector<StorageRef> here = placed(p.in, gpu());
    if (aligned)
      for (std::size_t i = 0; i < p.in.size(); ++i) here[i] = resident(p.in[i], gpu());
    std::string plan;
    const std::vector<double> got = p.on_gpu(here, &plan);
    EXPECT_NE(plan.find("cuda.fp8_gemm"), std::string::npos) << plan;
    EXPECT_LE(relative_error(got, want), kRounding) << (aligned ? "" : "misaligned");
    EXPECT_EQ(got, p.on_gpu(here, nullptr, false)) << "rounded by the product itself";
  }
}

TEST_F(CudaFp8, ProductsAreThoseOfTheRoundedOperands) {
  for (const bool turned : {false, true}) {
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{128, 128, 128},
                                  {129, 130, 64},
                                  {300, 520, 1000},
                                  {257, 391, 200},
                                  {640, 384, 72}})
      expect_rounded_product(m, n, {{k, turned, "bf16"}});
    expect_rounded_product(1100, 2304, {{256, turned, "bf16"}});
  }
}

TEST_F(CudaFp8, EveryFormatInBothDirections) {
  for (const Format* f : all_formats()) {
    if (f->name == "fp8") continue;  // of caches alone
    expect_rounded_product(130, 264, {{512, false, f->name.data()}});
    expect_rounded_product(130, 512, {{200, true, f->name.data()}});
  }
}

TEST_F(CudaFp8, AdaptersJoinTheSameSumsInBf16) {
  for (const std::int64_t rank : {1, 4, 16, 64, 100, 256}) {
    expect_rounded_product(260, 264, {{256, false, "q8_0"}, {rank, false, "adapter"}});
    expect_rounded_product(260, 264, {{300, true, "bf16"}, {rank, true, "adapter"}});
  }
  expect_rounded_product(200, 512,
                         {{512, true, "q4_k"},
                          {16, true, "adapter"},
                          {130, true, "q6_k"},
                          {16, true, "adapter"},
                          {256, true, "nf4"},
                          {8, true, "adapter"}});
}

// Sums of whole numbers are exact whatever their order: each result is the bf16 next to the true
// one. So many columns of such a length that weights are decoded in passes.
TEST_F(CudaFp8, LongSumsInSeveralPassesAreExact) {
  const std::int64_t m = 128, n = 384, k = 180032;
  auto small = [](Shape shape, std::uint64_t salt, int most) {
    StorageRef s = Storage::make({shape, DType::bf16, nullptr});
    const std::uint16_t codes[] = {0, 0x3f80, 0xbf80, 0x4000, 0xc000};  // 0, 1, -1, 2, -2
    auto* words = s->as<std::uint16_t>();
    for (std::int64_t i = 0; i < shape.numel(); ++i)
      words[i] =
          codes[((static_cast<std::uint64_t>(i) + salt) * 0x9e3779b97f4a7c15u >> 40 & 0xffffu) %
                most];
    return s;
  };
  for (const bool turned : {false, true}) {
    Product p(128, 128, {});
    p.attributes.trans_w = turned;
    p.in = {small({m, k}, 1, 3), small(turned ? Shape{k, n} : Shape{n, k}, 99, 5)};
    const std::vector<double> got = p.on_gpu({resident(p.in[0], gpu()), resident(p.in[1], gpu())});
    for (std::int64_t i = 0; i < 300; ++i) {
      const std::int64_t row = i * 37 % m, col = i * 101 % n;
      double sum = 0;
      for (std::int64_t j = 0; j < k; ++j)
        sum += get(*p.in[0], row * k + j) * get(*p.in[1], turned ? j * n + col : col * k + j);
      EXPECT_EQ(got[static_cast<std::size_t>(row * n + col)],
                static_cast<float>(bf16(static_cast<float>(sum))))
          << row << ' ' << col << (turned ? " turned" : "");
    }
  }
}

// A code is off by at most 1/16, uniformly: 2.65 % of its number in the mean square, 3.75 % with
// two.
TEST_F(CudaFp8, TheErrorIsThatOfTwoRoundingsToE4M3) {
  const Product p(256, 512, {{2048, false, "bf16"}});
  const double error = relative_error(p.on_gpu(placed(p.in, gpu())), p.want(false));
  EXPECT_LE(error, 0.04);
  EXPECT_GE(error, 0.03);
}

// Codes are floating-point numbers: a scale for 256 of them loses nothing against one for 128, on
// even numbers and where one column in 200 is 300 times as large.
TEST_F(CudaFp8, LongerGroupsCostNoAccuracy) {
  for (const bool outliers : {false, true}) {
    SCOPED_TRACE(outliers);
    Product p(256, 256, {{2048, false, "bf16"}});
    for (std::int64_t i = 0; i < 256 * 2048; ++i) {
      const double size = outliers && i % 2048 % 200 == 7 ? 300 : 1;
      for (const std::size_t operand : {0u, 1u})
        put(*p.in[operand], i,
            static_cast<float>(
                bf16(static_cast<float>((operand == 0 ? size : 1) *
                                        gaussian(operand + 7, static_cast<std::uint64_t>(i))))));
    }
    const std::vector<double> exact = p.want(false);
    EXPECT_LE(relative_error(p.on_gpu(placed(p.in, gpu())), exact),
              1.02 * relative_error(p.want(true, 128), exact));
  }
}

TEST_F(CudaFp8, ZerosTinyNumbersAndNansKeepToTheirGroups) {
  Product p(128, 128, {{256, false, "bf16"}});
  for (std::int64_t k = 0; k < 256; ++k) {
    put(*p.in[0], 3 * 256 + k, 0);
    put(*p.in[0], 5 * 256 + k, k < 128 ? 1e-38 : 0);
    put(*p.in[0], 7 * 256 + k, k < 128 ? 1e30 : 1e-3);
  }
  put(*p.in[0], 9 * 256 + 200, NAN);
  const std::vector<double> got = p.on_gpu(placed(p.in, gpu()));
  std::vector<double> want = p.want(true), kept;
  for (std::int64_t j = 0; j < 128; ++j) {
    EXPECT_EQ(got[static_cast<std::size_t>(3 * 128 + j)], 0);
    EXPECT_LE(std::abs(got[static_cast<std::size_t>(5 * 128 + j)]), 1e-36);
    EXPECT_TRUE(std::isnan(got[static_cast<std::size_t>(9 * 128 + j)]));
  }
  for (const std::int64_t row : {0, 7, 8, 10, 127}) {
    const auto begin = static_cast<std::size_t>(row * 128);
    EXPECT_LE(relative_error({got.begin() + begin, got.begin() + begin + 128},
                             {want.begin() + begin, want.begin() + begin + 128}),
              kRounding)
        << row;
  }
}

TEST_F(CudaFp8, WhatIsSmallerThanATileAndAdaptersStayBf16) {
  for (const auto& [m, n, weight] :
       {std::tuple{64, 256, "bf16"}, {3, 256, "q4_k"}, {256, 64, "q4_k"}, {256, 256, "adapter"}}) {
    SCOPED_TRACE(fmt::format("{} x {} {}", m, n, weight));
    const Product p(m, n, {{256, false, weight}});
    EXPECT_LE(relative_error(p.on_gpu(placed(p.in, gpu())), p.want(false)), kRounding);
  }
}

StorageRef quantized(const StorageRef& s, const char* name) {
  const Format* f = find_format(name);
  StorageRef q = Storage::make({s->spec.shape, DType::quant, f}, s->name);
  void* planes[kMaxPlanes];
  for (int p = 0; p < kMaxPlanes; ++p) planes[p] = const_cast<void*>(q->planes.data[p]);
  f->encode(s->as<float>(), s->spec.shape[0], s->spec.shape[1], planes);
  return q;
}

// Twelve steps of a LoRA adapter on a small Llama in Q8_0.
std::vector<double> losses(Compute compute, bool recomputed) {
  models::Model model = random_model(0, 64, 4);
  for (models::Layer& l : model.layers)
    for (nn::Linear* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down})
      m->weight = quantized(m->weight, "q8_0");
  nn::LoraSet lora =
      train::make_lora(model, {.rank = 8, .alpha = 16, .targets = {}, .seed = 1}, true);
  models::make_resident(model, gpu(), {});
  Executor executor(gpu());
  constexpr std::int64_t kTokens = 256;
  Policy policy;
  if (recomputed) policy.checkpoint_regions = 100;
  train::Trainer trainer(model, lora, executor, kTokens, compute, {}, policy);
  text::Batch batch;
  batch.ids = random_ids(kTokens, model.config.vocab_size);
  for (std::int32_t i = 0; i < kTokens; ++i) {
    batch.labels.push_back(batch.ids[static_cast<std::size_t>(i + 1) % kTokens]);
    batch.positions.push_back(i % 64);
    batch.lo.push_back(i / 64 * 64);
    ++batch.trained;
  }
  std::vector<double> all;
  for (int number = 1; number <= 12; ++number) {
    all.push_back(trainer.accumulate(batch, 1.0f / static_cast<float>(batch.trained)));
    trainer.step(number, 1e-2f);
  }
  return all;
}

TEST_F(CudaFp8, TrainingFollowsBf16AndRepeatsItsBits) {
  const std::vector<double> want = losses(Compute::bf16, false), got = losses(Compute::fp8, false);
  EXPECT_LT(want.back(), 0.8 * want.front());
  EXPECT_NE(got, want);
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 0.02 * want[0]) << "step " << i + 1;
  EXPECT_EQ(losses(Compute::fp8, false), got);
  EXPECT_EQ(losses(Compute::fp8, true), got) << "recomputed";
}

TEST(Fp8, ACpuHasNoSuchProducts) {
  EXPECT_FALSE(cpu_backend().computes(Compute::fp8));
  for (const Compute c : {Compute::fp32, Compute::bf16, Compute::int8})
    EXPECT_TRUE(cpu_backend().computes(c));
}

}  // namespace
}  // namespace supersonic::testing
