// Matrix products against fp64 over operand types, orientations, odd sizes, thread counts, terms
// and accumulation.
//
// The reference rounds operands exactly as Compute promises (bf16 where the machine multiplies
// bf16, int8 codes for prepared rows) and sums in fp64, so what is left is fp32 summation: 2^-20 of
// the sum of magnitudes covers it. Where a decoded weight or an int8 code may round the other way
// (a fused multiply-add before the rounding), a few units of the coarser type are allowed on top.
// Y, the workspace and everything around operands is poisoned.
#include "backend/cpu/kernels/gemm.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "support/scales.h"

namespace supersonic::cpu {
namespace {

std::mt19937_64 rng(7);
float normal() { return std::normal_distribution<float>()(rng); }
std::int64_t pick(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(rng);
}

double widen(DType t, const std::uint8_t* p) {
  float f = 0;
  std::uint16_t h = 0;
  if (t == DType::f32) return std::memcpy(&f, p, 4), f;
  std::memcpy(&h, p, 2);
  if (t == DType::bf16) {
    bf16 b;
    b.bits = h;
    return static_cast<float>(b);
  }
  f16 b;
  b.bits = h;
  return static_cast<float>(b);
}
void narrow(DType t, float x, std::uint8_t* p) {
  if (t == DType::f32) std::memcpy(p, &x, 4);
  if (t == DType::bf16) std::memcpy(p, &static_cast<const std::uint16_t&>(bf16(x).bits), 2);
  if (t == DType::f16) std::memcpy(p, &static_cast<const std::uint16_t&>(f16(x).bits), 2);
}
double to_bf16(double x) { return static_cast<float>(bf16(static_cast<float>(x))); }

// A stored matrix with its values; dense ones are misaligned, have a padded row stride, and NaN in
// the padding.
struct Matrix {
  MatrixRef ref;
  std::vector<std::uint8_t> bytes[kMaxPlanes];
  std::vector<double> values;  // rows x cols
};

Matrix dense(DType t, std::int64_t rows, std::int64_t cols) {
  Matrix m;
  m.ref.dtype = t;
  m.ref.rows = rows, m.ref.cols = cols, m.ref.ld = cols + pick(0, 3);
  const std::size_t size = size_of(t), shift = 1 + static_cast<std::size_t>(pick(0, 6));
  m.bytes[0].assign(shift + static_cast<std::size_t>(rows * m.ref.ld) * size, 0xff);
  m.ref.data = m.bytes[0].data() + shift;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) {
      std::uint8_t* p =
          m.bytes[0].data() + shift + static_cast<std::size_t>(r * m.ref.ld + c) * size;
      narrow(t, normal(), p);
      m.values.push_back(widen(t, p));
    }
  return m;
}

Matrix quantized(const Format& f, std::int64_t rows, std::int64_t cols) {
  Matrix m;
  m.ref.dtype = DType::quant;
  m.ref.format = &f;
  m.ref.rows = rows, m.ref.cols = cols;
  void* planes[kMaxPlanes] = {};
  for (int p = 0; p < f.planes; ++p) {
    m.bytes[p].resize(f.plane_bytes(f, p, rows, cols));
    for (auto& b : m.bytes[p]) b = static_cast<std::uint8_t>(rng());
    planes[p] = m.bytes[p].data();
    m.ref.planes.data[p] = planes[p];
  }
  if (f.encode) {
    std::vector<float> w(static_cast<std::size_t>(rows * cols));
    for (auto& x : w) x = normal() * 0.5f + 0.1f;
    f.encode(w.data(), rows, cols, planes);
  } else {  // any codes, scales near 2^-7
    for (std::size_t b = 0; b < m.bytes[0].size(); b += static_cast<std::size_t>(f.block_bytes))
      testing::set_scale(f, m.bytes[0].data() + b, 0.01f + std::fabs(normal()) * 0.003f);
  }
  std::vector<float> out(static_cast<std::size_t>(rows * cols));
  f.decode(m.ref.planes, 0, rows * cols, out.data());
  m.values.assign(out.begin(), out.end());
  return m;
}

struct TermSpec {
  DType x;               // i8: prepared rows
  const Format* format;  // null: dense w
  DType w;
  bool trans_x, trans_w;
  std::int64_t k;
};

struct Case {
  std::int64_t m, n;
  std::vector<TermSpec> terms;
  DType y = DType::f32;
  bool accumulate = false;
  Compute compute = Compute::fp32;
  float alpha = 1;
  int threads = 1;
};

std::string describe(const Case& c) {
  std::string s = fmt::format("m {} n {} y {} accumulate {} compute {} threads {}", c.m, c.n,
                              name_of(c.y), c.accumulate, static_cast<int>(c.compute), c.threads);
  for (const auto& t : c.terms)
    s += fmt::format(" [x {}{} w {}{} k {}]", name_of(t.x), t.trans_x ? "^T" : "",
                     t.format ? t.format->name : name_of(t.w), t.trans_w ? "^T" : "", t.k);
  return s;
}

// The codes that prepared rows hold, as values: groups of 32 along k, scale max/127, nearest.
std::vector<double> quantized_rows(const std::vector<double>& x, std::int64_t m, std::int64_t k) {
  std::vector<double> out(x.size());
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t g = 0; g < k; g += 32) {
      const std::int64_t end = std::min(k, g + 32);
      double top = 0;
      for (std::int64_t i = g; i < end; ++i) top = std::max(top, std::fabs(x[r * k + i]));
      for (std::int64_t i = g; i < end; ++i)
        out[r * k + i] = top > 0 ? std::nearbyint(x[r * k + i] * 127 / top) * top / 127 : 0;
    }
  return out;
}

void check(const Case& c) {
  SCOPED_TRACE(describe(c));
  Pool pool(c.threads);
  std::vector<Matrix> kept;
  std::vector<std::vector<std::uint8_t>> prepared;
  std::vector<GemmTerm> terms;
  const std::size_t cells = static_cast<std::size_t>(c.m * c.n);
  std::vector<double> sum(cells, 0), magnitude(cells, 0), slack(cells, 0);
  // Up to eight rows nothing is rounded: weights stream past fp32 activations.
  bool few = c.m <= 8;
  for (const auto& t : c.terms) few = few && !t.trans_x && !t.trans_w;
  const bool native = isa() == Isa::avx512 && !few;
  for (const auto& t : c.terms) {
    GemmTerm g;
    g.trans_x = t.trans_x, g.trans_w = t.trans_w;
    kept.push_back(
        dense(t.x == DType::i8 ? DType::f32 : t.x, t.trans_x ? t.k : c.m, t.trans_x ? c.m : t.k));
    std::vector<double> x = kept.back().values;
    g.x = kept.back().ref;
    kept.push_back(t.format ? quantized(*t.format, t.trans_w ? t.k : c.n, t.trans_w ? c.n : t.k)
                            : dense(t.w, t.trans_w ? t.k : c.n, t.trans_w ? c.n : t.k));
    const std::vector<double>& w = kept.back().values;
    g.w = kept.back().ref;
    const bool rounds = c.compute != Compute::fp32 && native;
    if (t.x == DType::i8) {
      prepared.emplace_back(int8_rows_bytes(c.m, t.k) + 1, std::uint8_t{0xff});
      std::uint8_t* out = prepared.back().data();
      quantize_int8_rows(pool, g.x.data, DType::f32, c.m, t.k, g.x.ld, out);
      g.x = MatrixRef{.data = out, .dtype = DType::i8, .rows = c.m, .cols = t.k};
      x = quantized_rows(x, c.m, t.k);
    }
    if (rounds && t.x != DType::i8 && !t.trans_x && c.m > 8 && packs_bf16() && pick(0, 1)) {
      const std::size_t bytes = bf16_panels_bytes(c.m, t.k);
      prepared.emplace_back(bytes + 64, std::uint8_t{0xff});
      pack_bf16_panels(pool, g.x.data, t.x, c.m, t.k, g.x.ld, prepared.back().data());
      for (std::size_t i = bytes; i < bytes + 64; ++i)
        ASSERT_EQ(prepared.back()[i], 0xff) << "wrote behind the panels";
      g.x = MatrixRef{.data = prepared.back().data(),
                      .dtype = DType::bf16,
                      .panels = true,
                      .rows = c.m,
                      .cols = t.k};
    }
    terms.push_back(g);
    const double coarse = (rounds ? 0x1p-7 : 0) + (t.x == DType::i8 ? 0.01 : 0);
    for (std::int64_t i = 0; i < c.m; ++i)
      for (std::int64_t j = 0; j < c.n; ++j) {
        double largest = 0;
        for (std::int64_t k = 0; k < t.k; ++k) {
          double a = x[t.trans_x ? k * c.m + i : i * t.k + k],
                 b = w[t.trans_w ? k * c.n + j : j * t.k + k];
          if (rounds && t.x != DType::i8) a = to_bf16(a), b = to_bf16(b);
          sum[i * c.n + j] += a * b;
          magnitude[i * c.n + j] += std::fabs(a * b);
          largest = std::max(largest, std::fabs(a * b));
        }
        // Prepared rows times weights without an int8 loop are rounded to bf16 as well, both
        // operands.
        if (rounds && t.x == DType::i8) slack[i * c.n + j] += 0x1p-8 * magnitude[i * c.n + j];
        if (t.format || t.x == DType::i8) slack[i * c.n + j] += 2 * coarse * largest;
      }
  }
  const std::size_t element = size_of(c.y);
  const std::int64_t ldy = c.n + pick(0, 5);
  std::vector<std::uint8_t> y(static_cast<std::size_t>(c.m * ldy) * element + 2, 0xff);
  std::uint8_t* out = y.data() + 1;
  std::vector<double> before(cells);
  if (c.accumulate)
    for (std::int64_t i = 0; i < c.m; ++i)
      for (std::int64_t j = 0; j < c.n; ++j) {
        std::uint8_t* p = out + static_cast<std::size_t>(i * ldy + j) * element;
        narrow(c.y, normal(), p);
        before[i * c.n + j] = widen(c.y, p);
      }
  GemmProblem p;
  p.m = c.m, p.n = c.n, p.terms = terms, p.y = out, p.y_dtype = c.y, p.ldy = ldy;
  p.accumulate = c.accumulate, p.compute = c.compute, p.alpha = c.alpha;
  const std::size_t bytes = gemm_workspace(p, c.threads);
  std::vector<std::uint8_t> workspace(bytes + 64, 0xff);
  gemm(pool, p, workspace.data() + 3);
  for (std::size_t i = bytes + 3; i < workspace.size(); ++i)
    ASSERT_EQ(workspace[i], 0xff) << "wrote behind the workspace";
  ASSERT_EQ(y[0], 0xff);
  ASSERT_EQ(y.back(), 0xff);
  const double unit = c.y == DType::f32 ? 0x1p-23 : c.y == DType::bf16 ? 0x1p-8 : 0x1p-11;
  int bad = 0;
  for (std::int64_t i = 0; i < c.m && bad < 5; ++i) {
    for (std::int64_t j = 0; j < c.n && bad < 5; ++j) {
      const std::size_t at = static_cast<std::size_t>(i * c.n + j);
      const double got = widen(c.y, out + static_cast<std::size_t>(i * ldy + j) * element);
      const double want = before[at] + c.alpha * sum[at];
      const double bound = std::fabs(c.alpha) * (0x1p-20 * magnitude[at] + slack[at]) +
                           unit * (std::fabs(want) + std::fabs(c.alpha) * slack[at]) * 1.01 + 1e-6;
      if (!(std::fabs(got - want) <= bound)) {
        ADD_FAILURE() << "y[" << i << "," << j << "] = " << got << ", must be " << want
                      << " within " << bound;
        ++bad;
      }
    }
    for (std::size_t b = static_cast<std::size_t>(i * ldy + c.n) * element;
         b < static_cast<std::size_t>((i + 1) * ldy) * element && i + 1 < c.m; ++b)
      ASSERT_EQ(out[b], 0xff) << "wrote behind row " << i;
  }
}

std::int64_t round_k(std::int64_t k, const Format* f) {
  return f ? (k + f->block - 1) / f->block * f->block : k;
}

TEST(Gemm, equals_fp64_for_every_pair_of_dtypes_and_orientation) {
  for (DType x : {DType::f32, DType::bf16, DType::f16})
    for (DType w : {DType::f32, DType::bf16, DType::f16})
      for (bool tx : {false, true})
        for (bool tw : {false, true})
          for (Compute compute : {Compute::fp32, Compute::bf16})
            for (DType y : {DType::f32, DType::bf16, DType::f16})
              check({.m = pick(1, 40),
                     .n = pick(1, 90),
                     .terms = {{x, nullptr, w, tx, tw, pick(1, 150)}},
                     .y = y,
                     .accumulate = pick(0, 1) == 1,
                     .compute = compute,
                     .threads = static_cast<int>(pick(1, 3))});
}

TEST(Gemm, equals_fp64_for_every_format_with_floats_and_prepared_rows) {
  ASSERT_GT(all_formats().size(), 5u);
  for (const Format* f : all_formats())
    for (DType x : {DType::f32, DType::bf16, DType::i8})
      for (bool tw : {false, true})
        for (Compute compute : {Compute::fp32, Compute::bf16})
          for (std::int64_t m : {std::int64_t{1}, pick(2, 8), pick(9, 50)}) {
            const std::int64_t n = pick(1, 70), k = pick(1, 500);
            check({.m = m,
                   .n = tw ? round_k(n, f) : n,
                   .terms = {{x, f, DType::quant, false, tw, tw ? k : round_k(k, f)}},
                   .compute = compute,
                   .threads = static_cast<int>(pick(1, 3))});
          }
}

TEST(Gemm, every_small_row_count_and_width) {
  const Format* f = find_format("q4_1");
  for (std::int64_t m = 1; m <= 33; ++m)
    for (std::int64_t n : {1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 65}) {
      check({.m = m,
             .n = n,
             .terms = {{DType::bf16, nullptr, DType::bf16, false, false, 70}},
             .compute = Compute::bf16,
             .threads = 2});
      check({.m = m,
             .n = n,
             .terms = {{DType::f32, nullptr, DType::f32, false, false, 35}},
             .threads = 2});
      check({.m = m,
             .n = n,
             .terms = {{DType::i8, f, DType::quant, false, false, 96}},
             .compute = Compute::int8,
             .threads = 2});
    }
}

TEST(Gemm, sums_terms_of_mixed_kinds_and_rounds_once) {
  const Format *q = find_format("q4_1"), *q8 = find_format("q8_0"), *q6 = find_format("q6_k");
  for (std::int64_t m : {3, 45, 130})
    for (bool accumulate : {false, true})
      for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8}) {
        check({.m = m,
               .n = 101,
               .terms = {{DType::bf16, q, DType::quant, false, false, 576},
                         {DType::f32, nullptr, DType::bf16, false, false, 16}},
               .y = DType::bf16,
               .accumulate = accumulate,
               .compute = compute,
               .alpha = 0.5f,
               .threads = 2});
        check({.m = m,
               .n = 101,
               .terms = {{DType::i8, q, DType::quant, false, false, 288},
                         {DType::bf16, nullptr, DType::f32, false, false, 13},
                         {DType::i8, q8, DType::quant, false, false, 64},
                         {DType::i8, q6, DType::quant, false, false, 256}},
               .accumulate = accumulate,
               .compute = compute,
               .threads = 2});
        check({.m = m,
               .n = 96,
               .terms = {{DType::bf16, q, DType::quant, false, true, 70},
                         {DType::bf16, q8, DType::quant, false, true, 33},
                         {DType::bf16, nullptr, DType::f32, false, true, 16}},
               .y = DType::bf16,
               .accumulate = accumulate,
               .compute = compute,
               .threads = 3});
      }
}

TEST(Gemm, long_sums_and_many_rows_are_blocked) {
  const Format *q = find_format("q4_k"), *q4 = find_format("q4_0");
  check({.m = 40,
         .n = 70,
         .terms = {{DType::f32, nullptr, DType::f32, false, false, 9000},
                   {DType::bf16, nullptr, DType::bf16, true, true, 700}},
         .threads = 2});
  check({.m = 20,
         .n = 40,
         .terms = {{DType::bf16, q, DType::quant, false, false, 8192},
                   {DType::f32, nullptr, DType::f32, false, false, 16}},
         .compute = Compute::bf16,
         .threads = 2});
  check({.m = 20,
         .n = 40,
         .terms = {{DType::i8, q4, DType::quant, false, false, 16384},
                   {DType::i8, q, DType::quant, false, false, 4096}},
         .compute = Compute::int8,
         .threads = 2});
  check({.m = 1500,
         .n = 33,
         .terms = {{DType::f32, nullptr, DType::bf16, false, false, 6000}},
         .compute = Compute::bf16,
         .threads = 2});
}

TEST(Gemm, is_the_same_bits_every_time) {
  Pool pool(2);
  const Matrix x = dense(DType::bf16, 77, 576), w = quantized(*find_format("q4_0"), 100, 576);
  const GemmTerm term{x.ref, false, w.ref, false};
  std::vector<float> first(77 * 100), again(77 * 100);
  GemmProblem p;
  p.m = 77, p.n = 100, p.terms = {&term, 1}, p.ldy = 100, p.compute = Compute::bf16;
  std::vector<std::uint8_t> workspace(gemm_workspace(p, 2));
  p.y = first.data();
  gemm(pool, p, workspace.data());
  for (int i = 0; i < 20; ++i) {
    p.y = again.data();
    gemm(pool, p, workspace.data());
    ASSERT_EQ(std::memcmp(first.data(), again.data(), first.size() * 4), 0);
  }
}

TEST(Gemm, nan_and_infinity_in_activations_reach_the_result) {
  Pool pool(1);
  const Matrix w = quantized(*find_format("q8_0"), 5, 64);
  for (std::int64_t m : {1, 12})
    for (float special : {NAN, INFINITY}) {
      std::vector<float> x(static_cast<std::size_t>(m * 64), 1.0f),
          y(static_cast<std::size_t>(m * 5));
      x[3] = special;
      std::vector<std::uint8_t> rows(int8_rows_bytes(m, 64));
      quantize_int8_rows(pool, x.data(), DType::f32, m, 64, 64, rows.data());
      const GemmTerm term{
          {.data = rows.data(), .dtype = DType::i8, .rows = m, .cols = 64}, false, w.ref, false};
      GemmProblem p;
      p.m = m, p.n = 5, p.terms = {&term, 1}, p.ldy = 5, p.y = y.data(), p.compute = Compute::int8;
      std::vector<std::uint8_t> workspace(gemm_workspace(p, 1));
      gemm(pool, p, workspace.data());
      for (int j = 0; j < 5; ++j) EXPECT_FALSE(std::isfinite(y[static_cast<std::size_t>(j)]));
      for (std::size_t j = 5; j < y.size(); ++j) EXPECT_TRUE(std::isfinite(y[j]));
    }
}

TEST(Gemm, empty_sums_clear_or_keep_y) {
  Pool pool(2);
  std::vector<float> y(6, 3.0f);
  GemmProblem p;
  p.m = 2, p.n = 3, p.ldy = 3, p.y = y.data(), p.accumulate = true;
  gemm(pool, p, nullptr);
  EXPECT_EQ(y, std::vector<float>(6, 3.0f));
  p.accumulate = false;
  gemm(pool, p, nullptr);
  EXPECT_EQ(y, std::vector<float>(6, 0.0f));
}

TEST(Gemm, wrong_shapes_are_refused_with_both_sizes) {
  const Matrix x = dense(DType::f32, 4, 10), w = dense(DType::f32, 7, 11);
  const GemmTerm term{x.ref, false, w.ref, false};
  GemmProblem p;
  p.m = 4, p.n = 7, p.terms = {&term, 1}, p.ldy = 7;
  try {
    gemm_workspace(p, 1);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("7 x 11"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("7 x 10"), std::string::npos) << e.what();
  }
}

TEST(Gemm, holds_for_every_instruction_set_below_this_machines) {
  for (Isa lower : {Isa::portable, Isa::avx2}) {
    if (lower >= isa()) continue;
    const std::string command = fmt::format(
        "SUPERSONIC_ISA={} /proc/{}/exe --gtest_brief=1 --gtest_filter='Gemm.*:-*instruction_set*'",
        name_of(lower), getpid());
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
}

}  // namespace
}  // namespace supersonic::cpu
