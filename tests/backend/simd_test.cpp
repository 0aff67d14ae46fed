// Vector math against double libm over the functions' ranges, special values included; conversions
// against core/dtype.h.
#include "backend/cpu/kernels/array.h"
#include "kernel_test_util.h"

namespace supersonic::cpu::test {
namespace {

double ulp_error(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (std::isnan(want) || std::isinf(rounded) || std::isinf(got) || std::isnan(got))
    return (std::isnan(want) && std::isnan(got)) || got == rounded ? 0 : 1e9;
  const float magnitude = std::fmax(std::fabs(rounded), 0x1p-126f);
  const double ulp = std::ldexp(1.0, std::ilogb(magnitude) - 23);
  return std::fabs(static_cast<double>(got) - want) / ulp;
}

struct Case {
  const char* name;
  MathFn fn;
  double (*want)(double);
  float low, high;
  double ulps, absolute;  // an error within either is accepted
};
const Case kCases[] = {
    {"exp", MathFn::exp, std::exp, -120, 100, 2, 0},
    {"exp2", MathFn::exp2, std::exp2, -170, 150, 2, 0},
    {"log", MathFn::log, std::log, 0, 3e38f, 2, 0},
    {"log near 1", MathFn::log, std::log, 0.4f, 2.5f, 2, 0},
    {"log1p", MathFn::log1p, std::log1p, -0.9999f, 10, 3, 0},
    {"log1p large", MathFn::log1p, std::log1p, 1, 3e38f, 3, 0},
    {"sin", MathFn::sin, std::sin, -50, 50, 2, 1e-7},
    {"cos", MathFn::cos, std::cos, -50, 50, 2, 1e-7},
    {"sin large", MathFn::sin, std::sin, -20000, 20000, 2, 1e-7},
    {"cos large", MathFn::cos, std::cos, -1e9f, 1e9f, 2, 1e-7},
    {"tanh", MathFn::tanh, std::tanh, -12, 12, 3, 0},
    {"sigmoid", MathFn::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, -110, 100, 3, 0},
    {"erf", MathFn::erf, std::erf, -6, 6, 3, 0},
    {"sqrt", MathFn::sqrt, std::sqrt, 0, 3e38f, 0.5001, 0},
    {"rsqrt", MathFn::rsqrt, [](double x) { return 1 / std::sqrt(x); }, 1e-38f, 3e38f, 1.5, 0},
};

TEST(Simd, MathIsAccurateOverTheRange) {
  std::mt19937 rng(1);
  Pool pool(1);
  for (Isa level : levels())
    for (const Case& c : kCases) {
      std::vector<float> x;
      std::uniform_real_distribution<float> uniform(c.low, c.high);
      for (int i = 0; i < 100003; ++i) x.push_back(uniform(rng));
      // magnitudes spread over all exponents, subnormals included
      for (int e = -149; e < 128; ++e)
        for (float m : {1.0f, 1.3f, 1.9f})
          for (float s : {1.0f, -1.0f}) {
            const float v = s * std::ldexp(m, e);
            if (v >= c.low && v <= c.high) x.push_back(v);
          }
      std::vector<float> y(x.size(), NAN);
      array_kernels(level).map(pool, c.fn, x.data(), y.data(), static_cast<std::int64_t>(x.size()));
      double worst = 0, at = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double want = c.want(x[i]);
        if (std::fabs(y[i] - want) <= c.absolute) continue;
        const double u = ulp_error(y[i], want);
        if (u > worst) worst = u, at = x[i];
      }
      EXPECT_LE(worst, c.ulps) << c.name << " at " << at << " on " << name_of(level);
    }
}

TEST(Simd, MathKeepsSpecialValues) {
  const float inf = INFINITY, nan = NAN;
  const float x[] = {inf,        -inf,  nan,    0.0f, -0.0f, 0x1p-149f,
                     -0x1p-140f, 1e30f, -1e30f, 1,    -1,    2e-38f};
  constexpr int n = std::size(x);
  const struct {
    MathFn fn;
    double (*want)(double);
  } cases[] = {{MathFn::exp, std::exp},
               {MathFn::exp2, std::exp2},
               {MathFn::log, std::log},
               {MathFn::log1p, std::log1p},
               {MathFn::sin, std::sin},
               {MathFn::cos, std::cos},
               {MathFn::tanh, std::tanh},
               {MathFn::erf, std::erf},
               {MathFn::sqrt, std::sqrt},
               {MathFn::sigmoid, [](double v) { return 1 / (1 + std::exp(-v)); }}};
  Pool pool(1);
  for (Isa level : levels())
    for (const auto& c : cases) {
      float y[n];
      array_kernels(level).map(pool, c.fn, x, y, n);
      for (int i = 0; i < n; ++i) {
        EXPECT_LE(ulp_error(y[i], c.want(x[i])), 3) << "function " << int(c.fn) << " of " << x[i]
                                                    << " is " << y[i] << " on " << name_of(level);
      }
    }
}

TEST(Simd, ConversionsEqualTheScalarTypes) {
  // every upper half of a float, with low halves that round down, tie and round up
  std::vector<float> x;
  for (std::uint32_t high = 0; high < 0x10000; ++high)
    for (std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      x.push_back(std::bit_cast<float>(high << 16 | low));
  const auto n = static_cast<std::int64_t>(x.size());
  Pool pool(2);
  for (Isa level : levels()) {
    std::vector<bf16> b(x.size());
    std::vector<f16> h(x.size());
    array_kernels(level).cast(pool, x.data(), DType::f32, b.data(), DType::bf16, n);
    array_kernels(level).cast(pool, x.data(), DType::f32, h.data(), DType::f16, n);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) {
        wrong += !std::isnan(static_cast<float>(b[i])) || !std::isnan(static_cast<float>(h[i]));
      } else {
        wrong += b[i].bits != bf16(x[i]).bits || h[i].bits != f16(x[i]).bits;
      }
    }
    EXPECT_EQ(wrong, 0u) << name_of(level);
    std::vector<std::uint16_t> all(65536);
    for (int i = 0; i < 65536; ++i) all[i] = static_cast<std::uint16_t>(i);
    std::vector<float> f(65536), g(65536);
    array_kernels(level).cast(pool, all.data(), DType::f16, f.data(), DType::f32, 65536);
    array_kernels(level).cast(pool, all.data(), DType::bf16, g.data(), DType::f32, 65536);
    for (int i = 0; i < 65536; ++i) {
      f16 a;
      bf16 c;
      a.bits = c.bits = all[i];
      const float fa = static_cast<float>(a), fc = static_cast<float>(c);
      wrong += !(f[i] == fa || (std::isnan(f[i]) && std::isnan(fa))) ||
               !(g[i] == fc || (std::isnan(g[i]) && std::isnan(fc)));
    }
    EXPECT_EQ(wrong, 0u) << name_of(level);
  }
}

}  // namespace
}  // namespace supersonic::cpu::test
