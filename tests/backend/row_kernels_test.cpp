// Row kernels against plain fp64 loops: odd sizes, misaligned and poisoned buffers, 1 to 4 threads,
// every instruction set.
#include "backend/cpu/kernels/embedding.h"
#include "backend/cpu/kernels/rms_norm.h"
#include "backend/cpu/kernels/rope.h"
#include "backend/cpu/kernels/softmax_xent.h"
#include "core/error.h"
#include "kernel_test_util.h"

namespace supersonic::cpu::test {
namespace {

const DType kTypes[] = {DType::f32, DType::bf16};

// L = sum(y * dy) of the norm, in fp64, for finite differences.
double norm_loss(const std::vector<double>& x, const std::vector<double>& w, const Buffer& dy,
                 std::int64_t d, double eps) {
  double loss = 0;
  for (std::size_t row = 0; row * d < x.size(); ++row) {
    double sum = 0;
    for (std::int64_t j = 0; j < d; ++j) sum += x[row * d + j] * x[row * d + j];
    const double rstd = 1 / std::sqrt(sum / d + eps);
    for (std::int64_t j = 0; j < d; ++j) loss += x[row * d + j] * rstd * w[j] * dy[row * d + j];
  }
  return loss;
}
std::vector<double> values(const Buffer& b) {
  std::vector<double> v;
  for (std::int64_t i = 0; i < b.size(); ++i) v.push_back(b[i]);
  return v;
}

TEST(RmsNorm, ForwardEqualsTheFormula) {
  std::mt19937 rng(2);
  for (Isa level : levels())
    for (DType type : kTypes)
      for (DType w_type : kTypes)
        for (auto [rows, d] : {std::pair<int, int>{1, 1}, {3, 7}, {5, 64}, {17, 576}, {2, 1031}}) {
          Pool pool(1 + rows % 4);
          Buffer x(type, rows * d, rng), w(w_type, d, rng), y(type, rows * d),
              rstd(DType::f32, rows);
          rms_norm_kernels(level).forward(
              pool, {x.data(), w.data(), y.data(), rstd.f32(), rows, d, 1e-5f, type, w_type});
          std::vector<double> want(rows * d), want_rstd(rows);
          for (int r = 0; r < rows; ++r) {
            double sum = 0;
            for (int j = 0; j < d; ++j) sum += x[r * d + j] * x[r * d + j];
            want_rstd[r] = 1 / std::sqrt(sum / d + 1e-5f);
            for (int j = 0; j < d; ++j) want[r * d + j] = x[r * d + j] * want_rstd[r] * w[j];
          }
          EXPECT_LT(relative_error(y, want), tolerance(type)) << rows << "x" << d << name_of(level);
          EXPECT_LT(relative_error(rstd, want_rstd), 1e-6);
          EXPECT_TRUE(y.guard_intact());
        }
}

TEST(RmsNorm, BackwardEqualsFiniteDifferences) {
  std::mt19937 rng(3);
  for (Isa level : levels())
    for (DType type : kTypes)
      for (bool given_rstd : {true, false})
        for (auto [rows, d] : {std::pair<int, int>{1, 5}, {3, 33}, {70, 24}}) {
          Pool pool(3);
          Buffer x(type, rows * d, rng), w(type, d, rng), dy(type, rows * d, rng),
              y(type, rows * d), rstd(DType::f32, rows);
          Buffer dx(type, rows * d), dw(DType::f32, d);
          rms_norm_kernels(level).forward(
              pool, {x.data(), w.data(), y.data(), rstd.f32(), rows, d, 1e-5f, type, type});
          std::vector<unsigned char> workspace(rms_norm_backward_workspace(rows, d), 0xff);
          rms_norm_kernels(level).backward(
              pool, {dy.data(), x.data(), w.data(), given_rstd ? rstd.f32() : nullptr, dx.data(),
                     dw.f32(), workspace.data(), rows, d, 1e-5f, type, type});
          auto xs = values(x), ws = values(w);
          std::vector<double> want_dx, want_dw;
          auto slope = [&](double& v) {
            const double h = 1e-5, old = v;
            v = old + h;
            const double up = norm_loss(xs, ws, dy, d, 1e-5f);
            v = old - h;
            const double down = norm_loss(xs, ws, dy, d, 1e-5f);
            v = old;
            return (up - down) / (2 * h);
          };
          for (double& v : xs) want_dx.push_back(slope(v));
          for (double& v : ws) want_dw.push_back(slope(v));
          EXPECT_LT(relative_error(dx, want_dx), tolerance(type))
              << rows << "x" << d << name_of(level);
          EXPECT_LT(relative_error(dw, want_dw), 2e-6) << rows << "x" << d << name_of(level);
          EXPECT_TRUE(dx.guard_intact() && dw.guard_intact());
        }
}

TEST(RmsNorm, BackwardIsTheSameForAnyNumberOfThreads) {
  std::mt19937 rng(4);
  const int rows = 203, d = 96;
  Buffer x(DType::bf16, rows * d, rng), w(DType::f32, d, rng), dy(DType::bf16, rows * d, rng);
  std::vector<double> first;
  for (int threads : {1, 2, 3, 4}) {
    Pool pool(threads);
    Buffer dw(DType::f32, d);
    std::vector<unsigned char> workspace(rms_norm_backward_workspace(rows, d));
    rms_norm_kernels().backward(pool, {dy.data(), x.data(), w.data(), nullptr, nullptr, dw.f32(),
                                       workspace.data(), rows, d, 1e-5f, DType::bf16, DType::f32});
    if (first.empty()) first = values(dw);
    EXPECT_EQ(first, values(dw));
  }
}

TEST(Rope, TurnsPairsExactlyAndBack) {
  std::mt19937 rng(5);
  for (Isa level : levels())
    for (DType type : kTypes)
      for (RopePairing pairing : {RopePairing::halves, RopePairing::interleaved})
        for (auto [heads, d, rotary] :
             {std::tuple<int, int, int>{3, 64, 64}, {2, 10, 10}, {1, 80, 38}}) {
          Pool pool(2);
          const int tokens = 7, stride = heads * d + 5;
          Buffer x(type, tokens * stride, rng), y(type, tokens * stride);
          const std::int32_t positions[] = {0, 1, 2, 511, 131071, 1000000, 5};
          std::vector<float> inv_freq;
          for (int i = 0; i < rotary / 2; ++i)
            inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / rotary)));
          Rope a;
          a.x = x.data(), a.y = y.data(), a.positions = positions, a.inv_freq = inv_freq.data();
          a.tokens = tokens, a.heads = heads, a.d = d, a.x_stride = a.y_stride = stride,
          a.rotary = rotary;
          a.factor = 1.25f, a.pairing = pairing, a.type = type;
          rope_kernels(level).rope(pool, a);
          double difference = 0, norm = 0;
          for (int t = 0; t < tokens; ++t)
            for (int h = 0; h < heads; ++h)
              for (int i = 0; i < rotary / 2; ++i) {
                const int base = t * stride + h * d;
                const int p = base + (pairing == RopePairing::halves ? i : 2 * i);
                const int q = base + (pairing == RopePairing::halves ? i + rotary / 2 : 2 * i + 1);
                const double angle = static_cast<double>(positions[t]) * inv_freq[i];
                const double c = 1.25 * std::cos(angle), s = 1.25 * std::sin(angle);
                const double ep = y[p] - (x[p] * c - x[q] * s), eq = y[q] - (x[p] * s + x[q] * c);
                difference += ep * ep + eq * eq;
                norm += x[p] * x[p] + x[q] * x[q];
              }
          EXPECT_LT(std::sqrt(difference / norm), tolerance(type)) << name_of(level) << " d " << d;
          for (int i = rotary; i < d; ++i) EXPECT_EQ(y[i], x[i]);
          // turning back in place gives factor^2 times the input
          a.x = y.data(), a.inverse = true;
          rope_kernels(level).rope(pool, a);
          for (int i = 0; i < rotary; ++i)
            EXPECT_NEAR(y[i], 1.5625 * x[i], type == DType::bf16 ? 0.1 : 2e-5);
          EXPECT_TRUE(y.guard_intact());
        }
}

TEST(Rope, RefusesAnOddRotaryDimension) {
  Pool pool(1);
  Rope a;
  a.d = 8, a.rotary = 7;
  EXPECT_THROW(rope_kernels().rope(pool, a), Error);
}

TEST(SoftmaxXent, LossAndGradientEqualTheFormula) {
  std::mt19937 rng(6);
  for (Isa level : levels())
    for (DType type : kTypes)
      for (auto [rows, vocab] : {std::pair<int, int>{1, 1}, {4, 13}, {5, 2049}, {3, 49152}}) {
        Pool pool(1 + rows % 3);
        const int stride = vocab + 3;
        Buffer logits(type, rows * stride, rng, 4);
        for (int j = 0; j < vocab; ++j) logits.set(j, logits[j] + 300);  // a row far from 0
        if (vocab > 2000) logits.set(stride + 7, -INFINITY);
        const Buffer before = logits;
        std::vector<std::int32_t> labels;
        std::vector<float> row_scale;
        for (int r = 0; r < rows; ++r)
          labels.push_back(r == 2 ? kIgnoredLabel : static_cast<int>(rng() % vocab)),
              row_scale.push_back(0.5f + r);
        Buffer loss(DType::f32, rows), lse(DType::f32, rows);
        SoftmaxXent a;
        a.logits = logits.data(), a.labels = labels.data(), a.row_scale = row_scale.data(),
        a.scale = 0.25f;
        a.loss = loss.f32(), a.lse = lse.f32(), a.rows = rows, a.vocab = vocab, a.stride = stride,
        a.type = type;
        a.gradient = false;
        softmax_xent_kernels(level).xent(pool, a);
        for (std::int64_t i = 0; i < logits.size(); ++i) ASSERT_EQ(logits[i], before[i]);
        const auto loss_only = values(loss);
        a.gradient = true;
        softmax_xent_kernels(level).xent(pool, a);
        EXPECT_EQ(loss_only, values(loss));
        for (int r = 0; r < rows; ++r) {
          double top = -INFINITY, sum = 0;
          for (int j = 0; j < vocab; ++j) top = std::fmax(top, before[r * stride + j]);
          for (int j = 0; j < vocab; ++j) sum += std::exp(before[r * stride + j] - top);
          const double want_lse = top + std::log(sum);
          EXPECT_NEAR(lse[r], want_lse, 1e-6 * std::fabs(want_lse) + 1e-6);
          const bool ignored = labels[r] == kIgnoredLabel;
          EXPECT_NEAR(loss[r], ignored ? 0 : want_lse - before[r * stride + labels[r]],
                      1e-6 * std::fabs(want_lse) + 1e-6);
          double difference = 0, norm = 0;
          for (int j = 0; j < vocab; ++j) {
            double want =
                ignored ? 0 : std::exp(before[r * stride + j] - want_lse) * 0.25 * row_scale[r];
            if (j == labels[r]) want -= 0.25 * row_scale[r];
            const double got = logits[r * stride + j];
            difference += (got - want) * (got - want), norm += want * want;
          }
          // fp32 log-sum-exp near 300 is good to 3e-5, so are the probabilities
          EXPECT_LE(std::sqrt(difference), (type == DType::bf16 ? 4e-3
                                            : r == 0            ? 4e-5
                                                                : 3e-6) *
                                                   std::sqrt(norm) +
                                               1e-7)
              << name_of(level) << " row " << r << " of " << rows << "x" << vocab;
          for (int j = vocab; j < stride; ++j)
            EXPECT_EQ(logits[r * stride + j], before[r * stride + j]);
        }
        EXPECT_TRUE(logits.guard_intact());
      }
}

TEST(SoftmaxXent, RefusesALabelOutsideTheVocabulary) {
  Pool pool(1);
  float logits[4] = {};
  for (std::int32_t label : {4, -1}) {
    SoftmaxXent a;
    a.logits = logits, a.labels = &label, a.rows = 1, a.vocab = a.stride = 4;
    EXPECT_THROW(softmax_xent_kernels().xent(pool, a), Error);
  }
}

TEST(SoftmaxXent, ArgmaxTakesTheFirstOfEqualMaxima) {
  Pool pool(2);
  std::mt19937 rng(7);
  for (Isa level : levels())
    for (DType type : kTypes)
      for (int n : {1, 5, 16, 17, 1000}) {
        Buffer x(type, 3 * n, rng);
        for (int j = 0; j < n; ++j)
          x.set(n + j, -INFINITY), x.set(2 * n + j, std::round(static_cast<float>(x[2 * n + j])));
        if (n > 3) x.set(0, NAN);
        std::int32_t got[3];
        softmax_xent_kernels(level).argmax(pool, {x.data(), 3, n, n, type}, got);
        for (int r : {0, 2}) {
          int want = -1;
          for (int j = 0; j < n; ++j)
            if (!std::isnan(x[r * n + j]) && (want < 0 || x[r * n + j] > x[r * n + want])) want = j;
          EXPECT_EQ(got[r], want) << n << name_of(level);
        }
        EXPECT_EQ(got[1], 0);
      }
}

// Rows of four weights, stored as one byte each less 8: a format whose meaning is plain.
const Format& byte_format() {
  static const Format format = [] {
    Format f;
    f.name = "byte", f.block = 4, f.block_bytes = 4, f.row_blocks = false;
    f.decode = [](const Planes& planes, std::int64_t first, std::int64_t count, float* out) {
      ASSERT_EQ(first % 4, 0);
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = static_cast<const unsigned char*>(planes.data[0])[first + i] - 8.0f;
    };
    return f;
  }();
  return format;
}

TEST(Embedding, GathersRowsOfAnyTable) {
  std::mt19937 rng(8);
  const int rows = 11, d = 37;
  const std::int32_t ids[] = {3, 0, 10, 3, 7};
  for (Isa level : levels())
    for (DType out_type : kTypes)
      for (int threads : {1, 3}) {
        Pool pool(threads);
        for (DType type : {DType::f32, DType::bf16, DType::f16}) {
          Buffer table(type, rows * d, rng), out(out_type, 5 * d);
          EmbeddingGather a;
          a.ids = ids, a.table = table.data(), a.out = out.data(), a.n = 5, a.rows = rows, a.d = d,
          a.table_type = type, a.out_type = out_type;
          embedding_kernels(level).gather(pool, a);
          for (int i = 0; i < 5 * d; ++i) {
            const float v = static_cast<float>(table[ids[i / d] * d + i % d]);
            EXPECT_EQ(out[i], out_type == DType::bf16 ? static_cast<float>(bf16(v)) : v);
          }
          EXPECT_TRUE(out.guard_intact());
        }
        std::vector<unsigned char> codes(rows * d);
        for (auto& c : codes) c = static_cast<unsigned char>(rng() % 16);
        Buffer out(out_type, 5 * d);
        EmbeddingGather a;
        a.ids = ids, a.format = &byte_format(), a.planes.data[0] = codes.data(), a.out = out.data();
        a.n = 5, a.rows = rows, a.d = d, a.out_type = out_type;
        std::vector<unsigned char> workspace(embedding_gather_workspace(a, threads));
        a.workspace = workspace.data();
        embedding_kernels(level).gather(pool, a);
        for (int i = 0; i < 5 * d; ++i) EXPECT_EQ(out[i], codes[ids[i / d] * d + i % d] - 8.0);
        const std::int32_t bad[] = {0, 11, 1, 1, 1};
        a.ids = bad;
        EXPECT_THROW(embedding_kernels(level).gather(pool, a), Error);
      }
}

TEST(Embedding, ScatterAddSumsInTheOrderOfIds) {
  std::mt19937 rng(9);
  const int rows = 5, d = 41, n = 64;
  std::vector<std::int32_t> ids(n);
  for (auto& id : ids) id = static_cast<int>(rng() % rows);
  for (Isa level : levels())
    for (DType type : kTypes) {
      Buffer dy(type, n * d, rng);
      std::vector<float> want(rows * d, 1.0f);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < d; ++j) want[ids[i] * d + j] += static_cast<float>(dy[i * d + j]);
      for (int threads : {1, 2, 4}) {
        Pool pool(threads);
        std::vector<float> got(rows * d, 1.0f);
        embedding_kernels(level).scatter_add(pool,
                                             {ids.data(), dy.data(), got.data(), n, rows, d, type});
        EXPECT_EQ(got, want);
      }
    }
}

}  // namespace
}  // namespace supersonic::cpu::test
