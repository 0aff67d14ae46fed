// AdamW with fp32 and 8-bit moments, the gradient norm, and plain array work against scalar fp64
// code.
#include <algorithm>
#include <bit>

#include "backend/cpu/kernels/adamw.h"
#include "backend/cpu/kernels/array.h"
#include "core/rounding.h"
#include "kernel_test_util.h"

namespace supersonic::cpu::test {
namespace {

TEST(AdamW, FollowsTheFormulaForSeveralSteps) {
  std::mt19937 rng(21);
  std::normal_distribution<float> normal;
  for (Isa level : levels())
    for (int n : {1, 15, 1000, 5003})
      for (int threads : {1, 3}) {
        Pool pool(threads);
        Buffer p(DType::f32, n, rng), m(DType::f32, n), v(DType::f32, n);
        std::vector<double> wp(n), wm(n, 0.0), wv(n, 0.0);
        for (int i = 0; i < n; ++i) m.set(i, 0), v.set(i, 0), wp[i] = p[i];
        const float scale = 0.5f;
        AdamWHyper h{1e-2f, 0.9f, 0.99f, 1e-8f, 0.1f, 1, &scale};
        for (h.step = 1; h.step <= 6; ++h.step) {
          Buffer g(DType::f32, n, rng);
          if (n > 3) g.set(3, 0);
          adamw_kernels(level).step(pool, {p.f32(), g.f32(), m.f32(), v.f32(), n}, h);
          for (int i = 0; i < n; ++i) {
            const double gi = g[i] * 0.5, b1 = 0.9f, b2 = 0.99f;
            wp[i] *= 1 - static_cast<double>(1e-2f) * 0.1f;
            wm[i] += (gi - wm[i]) * (1 - b1);
            wv[i] = wv[i] * b2 + (1 - b2) * gi * gi;
            const double denominator =
                std::sqrt(wv[i]) / std::sqrt(1 - std::pow(b2, h.step)) + static_cast<double>(1e-8f);
            wp[i] -= 1e-2f / (1 - std::pow(b1, h.step)) * wm[i] / denominator;
          }
        }
        EXPECT_LT(relative_error(p, wp), 1e-6) << name_of(level);
        EXPECT_LT(relative_error(m, wm), 1e-6);
        EXPECT_LT(relative_error(v, wv), 1e-6);
        EXPECT_TRUE(p.guard_intact() && m.guard_intact() && v.guard_intact());
      }
}

int nearest(const float* map, double x) {
  int best = 0;
  for (int i = 1; i < 256; ++i)
    if (std::fabs(map[i] - x) < std::fabs(map[best] - x)) best = i;
  return best;
}

TEST(AdamW, MapsHave256AscendingValuesOverSevenDecades) {
  for (const float* map : {dynamic_map_signed(), dynamic_map_unsigned()}) {
    for (int i = 1; i < 256; ++i) EXPECT_LT(map[i - 1], map[i]);
    EXPECT_EQ(map[255], 1.0f);
  }
  EXPECT_EQ(dynamic_map_signed()[kDynamicZeroSigned], 0.0f);
  EXPECT_EQ(dynamic_map_unsigned()[kDynamicZeroUnsigned], 0.0f);
  EXPECT_FLOAT_EQ(dynamic_map_signed()[128], 5.5e-7f);   // one cell in the last decade: its middle
  EXPECT_FLOAT_EQ(dynamic_map_unsigned()[1], 3.25e-7f);  // two cells
  EXPECT_FLOAT_EQ(dynamic_map_signed()[254], 0.99296875f);  // 1 - 0.45/64
}

TEST(AdamW, EightBitStepFollowsTheFormulaAndTakesTheNearestCodes) {
  std::mt19937 rng(22);
  const float *map_m = dynamic_map_signed(), *map_v = dynamic_map_unsigned();
  for (Isa level : levels())
    for (int n : {1, 256, 1000, 256 * 20 + 7}) {
      const int blocks = (n + 255) / 256;
      Pool pool(1 + n % 3);
      Buffer p(DType::f32, n, rng);
      std::vector<std::uint8_t> m(n, kDynamicZeroSigned), v(n, kDynamicZeroUnsigned);
      std::vector<float> m_max(blocks, 0.0f), v_max(blocks, 0.0f);
      AdamWHyper h{1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 1, nullptr};
      for (h.step = 1; h.step <= 3; ++h.step) {
        Buffer g(DType::f32, n, rng);
        for (int i = 0; i < n; ++i)
          g.set(i, static_cast<float>(g[i] * std::pow(10.0, -static_cast<int>(rng() % 9))));
        if (n > 300) g.set(290, INFINITY), g.set(291, NAN), g.set(292, 0);
        std::vector<double> wm(n), wv(n), wp(n);
        const double c1 = 1 - std::pow(static_cast<double>(0.9f), h.step),
                     c2 = std::sqrt(1 - std::pow(static_cast<double>(0.999f), h.step));
        for (int i = 0; i < n; ++i) {
          const double gi = std::isfinite(g[i]) ? g[i] : 0;
          wm[i] = 0.9f * static_cast<double>(map_m[m[i]] * m_max[i / 256]) +
                  (1 - static_cast<double>(0.9f)) * gi;
          wv[i] = 0.999f * static_cast<double>(map_v[v[i]] * v_max[i / 256]) +
                  (1 - static_cast<double>(0.999f)) * gi * gi;
          wp[i] = (p[i] - 1e-3f * c2 / c1 * wm[i] / (std::sqrt(wv[i]) + c2 * 1e-8f)) *
                  (1 - static_cast<double>(1e-3f) * 0.01f);
        }
        adamw_kernels(level).step_8bit(
            pool, {p.f32(), g.f32(), m.data(), v.data(), m_max.data(), v_max.data(), n}, h);
        EXPECT_LT(relative_error(p, wp), 1e-6) << name_of(level);
        for (int b = 0; b < blocks; ++b) {
          const int begin = b * 256, end = std::min(n, begin + 256);
          double top_m = 0, top_v = 0;
          for (int i = begin; i < end; ++i)
            top_m = std::fmax(top_m, std::fabs(wm[i])), top_v = std::fmax(top_v, wv[i]);
          EXPECT_NEAR(m_max[b], top_m, 1e-6 * top_m);
          EXPECT_NEAR(v_max[b], top_v, 1e-6 * top_v);
          for (int i = begin; i < end; ++i) {
            // as near as the nearest code, but for rounding; a negative moment keeps its sign
            const double x = wm[i] / top_m, y = wv[i] / top_v;
            const double best = x < 0 && nearest(map_m, x) == kDynamicZeroSigned
                                    ? std::fabs(map_m[126] - x)
                                    : std::fabs(map_m[nearest(map_m, x)] - x);
            EXPECT_LE(std::fabs(map_m[m[i]] - x), best + 2e-6 * std::fabs(x)) << x;
            EXPECT_TRUE(wm[i] >= 0 || map_m[m[i]] < 0);
            EXPECT_LE(std::fabs(map_v[v[i]] - y),
                      std::fabs(map_v[nearest(map_v, y)] - y) + 2e-6 * y)
                << y;
          }
        }
      }
    }
}

// The step in fp32, then each parameter rounded up or down by the draw of its element.
TEST(AdamW, ParametersInBf16AreRoundedByTheirOwnDraws) {
  std::mt19937 rng(23);
  for (Isa level : levels())
    for (const bool eight_bit : {false, true})
      for (int n : {1, 255, 5003}) {
        Pool pool(1 + n % 3);
        Buffer g(DType::f32, n, rng), narrow(DType::bf16, n, rng), wide(DType::f32, n);
        for (int i = 0; i < n; ++i) wide.set(i, static_cast<float>(narrow[i]));
        AdamWHyper h{1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 7, nullptr, (std::uint64_t{5} << 32) + 3};
        for (AdamWParameters p : {AdamWParameters(wide.f32()), AdamWParameters(static_cast<bf16*>(narrow.data()))}) {
          std::vector<float> m(n), v(n), maxima(2 * (n / 256 + 1));
          std::vector<std::uint8_t> cm(n, kDynamicZeroSigned), cv(n, kDynamicZeroUnsigned);
          if (eight_bit)
            adamw_kernels(level).step_8bit(pool, {p, g.f32(), cm.data(), cv.data(), maxima.data(), maxima.data() + n / 256 + 1, n}, h);
          else
            adamw_kernels(level).step(pool, {p, g.f32(), m.data(), v.data(), n}, h);
        }
        int up = 0;
        for (int i = 0; i < n; ++i) {
          const auto exact = static_cast<float>(wide[i]);
          const std::uint32_t word = Rng(h.seed, 7, rng_site("stochastic rounding"), 0).at(static_cast<std::uint64_t>(i) / 2);
          const std::uint32_t draw = (i % 2 ? word >> 16 : word) & 0xffff, bits = std::bit_cast<std::uint32_t>(exact);
          const bool rises = (bits & 0xffff) + draw >= 0x10000;
          const auto expected = std::bit_cast<float>((bits & 0xffff0000u) + (rises ? 0x10000u : 0u));
          EXPECT_EQ(narrow[i], expected) << i;
          up += rises;
        }
        if (n > 1000) {
          EXPECT_NEAR(up, n / 2, 4 * std::sqrt(n) / 2);
        }
        EXPECT_TRUE(narrow.guard_intact());
      }
}

TEST(AdamW, RoundingIsRightOnAverageAndKeepsWhatIsNotFinite) {
  const float x = 1 + 0x1p-7f * 0.3f;  // three tenths of the way to the next bf16
  double sum = 0;
  for (std::uint32_t draw = 0; draw < 0x10000; ++draw) sum += static_cast<float>(round_stochastically(x, draw));
  EXPECT_NEAR(sum / 0x10000, x, 0x1p-7 / 0x10000);
  for (const float special : {INFINITY, -INFINITY}) EXPECT_EQ(static_cast<float>(round_stochastically(special, 0xffff)), special);
  EXPECT_TRUE(std::isnan(static_cast<float>(round_stochastically(NAN, 0xffff))));
  EXPECT_EQ(static_cast<float>(round_stochastically(-1.5f, 0xffff)), -1.5f);
}

TEST(AdamW, EveryCodeSurvivesARoundTrip) {
  // beta = 1 and no gradient keep the moments as they are, so each code must come back
  for (Isa level : levels()) {
    Pool pool(1);
    std::vector<float> p(256, 0.0f), g(256, 0.0f);
    std::vector<std::uint8_t> m(256), v(256);
    for (int i = 0; i < 256; ++i) m[i] = v[i] = static_cast<std::uint8_t>(i);
    float m_max = 3e-5f, v_max = 7e-9f;
    adamw_kernels(level).step_8bit(pool,
                                   {p.data(), g.data(), m.data(), v.data(), &m_max, &v_max, 256},
                                   {0, 1, 1, 1e-8f, 0, 1, nullptr});
    for (int i = 0; i < 256; ++i) {
      EXPECT_EQ(m[i], i);
      EXPECT_EQ(v[i], i);
    }
    EXPECT_EQ(m_max, 3e-5f);
    EXPECT_EQ(v_max, 7e-9f);
  }
}

TEST(AdamW, GradientNormIsExactAndTheSameForAnyNumberOfThreads) {
  std::mt19937 rng(23);
  Buffer a(DType::f32, 100003, rng), b(DType::f32, 17, rng, 100), c(DType::f32, 16384, rng, 1e-3f);
  const GradientSpan spans[] = {
      {a.f32(), a.size()}, {b.f32(), b.size()}, {nullptr, 0}, {c.f32(), c.size()}};
  double sum = 0;
  for (const Buffer* x : {&a, &b, &c})
    for (std::int64_t i = 0; i < x->size(); ++i) sum += (*x)[i] * (*x)[i];
  std::vector<unsigned char> workspace(gradient_norm_workspace(spans, 4));
  for (Isa level : levels()) {
    float first = -1;
    for (int threads : {1, 2, 4}) {
      Pool pool(threads);
      float norm = -1, scale = -1;
      adamw_kernels(level).gradient_norm(pool, {spans, 4, 1.0f, &norm, &scale, workspace.data()});
      EXPECT_NEAR(norm, std::sqrt(sum), 2e-7 * std::sqrt(sum));
      EXPECT_NEAR(scale, 1 / (std::sqrt(sum) + 1e-6), 1e-6 * scale);
      if (first < 0) first = norm;
      EXPECT_EQ(norm, first);
      adamw_kernels(level).gradient_norm(pool, {spans, 4, 1e9f, nullptr, &scale, workspace.data()});
      EXPECT_EQ(scale, 1.0f);
    }
  }
}

TEST(Array, FillCopyTransposeAndReduce) {
  std::mt19937 rng(24);
  for (Isa level : levels())
    for (auto [rows, cols] : {std::pair<int, int>{1, 1}, {3, 50}, {33, 17}, {64, 100}}) {
      Pool pool(1 + rows % 4);
      const ArrayKernels& k = array_kernels(level);
      Buffer x(DType::f32, rows * (cols + 3), rng), copy(DType::f32, rows * (cols + 1)),
          turned(DType::f32, cols * (rows + 2));
      k.copy(pool, {x.data(), copy.data(), rows, cols, cols + 3, cols + 1, 4});
      k.transpose(pool, {x.data(), turned.data(), rows, cols, cols + 3, rows + 2, 4});
      Buffer sums(DType::f32, rows), tops(DType::f32, rows);
      k.row_sum(pool, {x.data(), rows, cols, cols + 3, DType::f32}, sums.f32());
      k.row_max(pool, {x.data(), rows, cols, cols + 3, DType::f32}, tops.f32());
      for (int r = 0; r < rows; ++r) {
        double sum = 0, top = -INFINITY;
        for (int c = 0; c < cols; ++c) {
          const double want = x[r * (cols + 3) + c];
          EXPECT_EQ(copy[r * (cols + 1) + c], want);
          EXPECT_EQ(turned[c * (rows + 2) + r], want);
          sum += want, top = std::fmax(top, want);
        }
        EXPECT_NEAR(sums[r], sum, 1e-5 * cols);
        EXPECT_EQ(tops[r], top);
      }
      for (DType type : {DType::f32, DType::bf16, DType::f16}) {
        Buffer y(type, rows * cols);
        k.fill(pool, y.data(), type, -1.5f, rows * cols);
        for (int i = 0; i < rows * cols; ++i) EXPECT_EQ(y[i], -1.5);
        EXPECT_TRUE(y.guard_intact());
      }
      for (std::size_t element : {1, 2, 8}) {
        std::vector<unsigned char> from(rows * cols * element), to(rows * cols * element);
        for (auto& b : from) b = static_cast<unsigned char>(rng());
        k.transpose(pool, {from.data(), to.data(), rows, cols, cols, rows, element});
        for (int r = 0; r < rows; ++r)
          for (int c = 0; c < cols; ++c)
            EXPECT_EQ(std::memcmp(&from[(r * cols + c) * element], &to[(c * rows + r) * element],
                                  element),
                      0);
      }
    }
}

}  // namespace
}  // namespace supersonic::cpu::test
