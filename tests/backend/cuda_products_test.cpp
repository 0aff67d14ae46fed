// The GPU's matrix-bound kernels at sizes and in ways that the generated operation tests do not
// reach: every orientation and type, tiles and their edges, split sums, formats with few and many
// rows, long and windowed attention, a loss over rows with and without labels. Oracle: the
// definitions in fp64, on operands that are exact in bf16. Runs repeat bit for bit. Skipped where
// no GPU answers.
#include <gtest/gtest.h>

#include "../core/tiny_model.h"

namespace supersonic::testing {
namespace {

class CudaProducts : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_gpus(&why).empty()) GTEST_SKIP() << why;
  }
};

Backend& gpu() { return device_backend("cuda"); }

StorageRef numbers(Shape shape, DType type, std::uint64_t seed, double sigma = 1) {
  StorageRef s = Storage::make({shape, type, nullptr});
  for (std::int64_t i = 0; i < s->spec.numel(); ++i)
    put(*s, i,
        static_cast<float>(
            bf16(static_cast<float>(sigma * gaussian(seed, static_cast<std::uint64_t>(i))))));
  return s;
}
StorageRef whole_numbers(std::int64_t n, const std::function<std::int64_t(std::int64_t)>& value) {
  StorageRef s = Storage::make({Shape{n}, DType::i32, nullptr});
  for (std::int64_t i = 0; i < n; ++i)
    s->as<std::int32_t>()[i] = static_cast<std::int32_t>(value(i));
  return s;
}
Tensors leaves(const std::vector<StorageRef>& in) {
  Tensors t;
  for (const auto& s : in) t.push_back(from_storage(s));
  return t;
}

using Values = std::vector<std::vector<double>>;

// The operation on the GPU, twice, its inputs one element off every alignment or on it, against its
// definition in fp64.
template <class A>
void expect_definition(const A& a, const std::vector<StorageRef>& in, Compute compute,
                       const std::vector<double>& tolerance) {
  std::vector<StorageRef> wide;
  for (const auto& s : in) wide.push_back(widened(s));
  const Values want = run([&] { return A::define(a, leaves(wide)); }, {}, cpu_backend());
  for (const bool aligned : {true, false}) {
    std::vector<StorageRef> here = placed(in, gpu());
    if (aligned)
      for (std::size_t i = 0; i < in.size(); ++i) here[i] = resident(in[i], gpu());
    Policy policy;
    policy.compute = compute;
    auto record_it = [&] { return record(op<A>(), Attrs::of(a), leaves(here), Where::current()); };
    const Values got = run(record_it, policy, gpu()), again = run(record_it, policy, gpu());
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t o = 0; o < got.size(); ++o)
      EXPECT_LE(relative_error(got[o], want[o]), tolerance[o])
          << "output " << o << (aligned ? "" : " misaligned");
    EXPECT_EQ(got, again);
  }
}

struct Term {
  std::int64_t k;
  bool tx, tw;
  const char* format = nullptr;
};
void expect_gemm(std::int64_t m, std::int64_t n, const std::vector<Term>& terms, DType x, DType y,
                 Compute compute) {
  SCOPED_TRACE(fmt::format("{} x {} x {}, {} terms, {} to {}, compute {}", m, n, terms[0].k,
                           terms.size(), name_of(x), name_of(y), name_of(compute)));
  Gemm a{static_cast<std::int32_t>(y), 0, 0, 0};
  std::vector<StorageRef> in;
  for (std::size_t t = 0; t < terms.size(); ++t) {
    const Term& e = terms[t];
    in.push_back(numbers(e.tx ? Shape{e.k, m} : Shape{m, e.k}, x, 2 * t + 1));
    const Shape w = e.tw ? Shape{e.k, n} : Shape{n, e.k};
    in.push_back(e.format ? random_storage({w, DType::quant, find_format(e.format)}, 2 * t + 2, 1)
                          : numbers(w, x, 2 * t + 2, 0.2));
    a.trans_x = static_cast<std::uint16_t>(a.trans_x | e.tx << t);
    a.trans_w = static_cast<std::uint16_t>(a.trans_w | e.tw << t);
  }
  // One rounding of the result; a decoded weight is rounded to bf16 where bf16 is computed.
  const bool rounded = compute == Compute::bf16 && terms[0].format;
  expect_definition(a, in, compute,
                    {y == DType::bf16 || rounded ? 4e-3
                     : y == DType::f16           ? 4e-4
                                                 : 5e-6});
}

TEST_F(CudaProducts, EveryOrientationTypeAndEdgeOfATile) {
  const std::int64_t sizes[][3] = {{5, 7, 3},      {64, 64, 64},     {33, 65, 49}, {200, 136, 264},
                                   {129, 257, 72}, {130, 264, 1000}, {8, 33, 520}};
  for (const auto& [m, n, k] : sizes)
    for (int orientation = 0; orientation < 4; ++orientation)
      for (const Compute compute : {Compute::fp32, Compute::bf16})
        for (const DType x : {DType::f32, DType::bf16})
          expect_gemm(m, n, {{k, orientation % 2 != 0, orientation / 2 != 0}}, x, x, compute);
}

TEST_F(CudaProducts, ManyTermsAreRoundedOnce) {
  for (const Compute compute : {Compute::fp32, Compute::bf16})
    for (const std::int64_t m : {3, 70, 150}) {
      expect_gemm(m, 90,
                  {{40, false, false},
                   {16, true, false},
                   {72, false, true},
                   {16, true, true},
                   {200, false, false},
                   {5, false, false},
                   {64, false, true}},
                  DType::bf16, DType::bf16, compute);
      expect_gemm(m, 96, {{192, false, false, "q4_1"}, {16, false, false}}, DType::bf16, DType::f32,
                  compute);
      expect_gemm(m, 96, {{200, false, true, "q4_1"}, {16, false, true}}, DType::bf16, DType::f32,
                  compute);
    }
}

TEST_F(CudaProducts, FormatsWithFewAndManyRows) {
  for (const Format* f : all_formats())
    for (const std::int64_t m : {1, 2, 4, 7, 9, 130})
      for (const Compute compute : {Compute::fp32, Compute::bf16}) {
        SCOPED_TRACE(f->name);
        expect_gemm(m, 75, {{1280, false, false, f->name.data()}}, DType::bf16, DType::f32,
                    compute);
        if (m > 8)
          expect_gemm(m, 512, {{75, false, true, f->name.data()}}, DType::bf16, DType::f32,
                      compute);
      }
}

// So many columns that blocks keep the row in shared memory and take several groups of them; an
// adapter beside the weights.
TEST_F(CudaProducts, OneRowAndManyColumns) {
  for (const Format* f : all_formats()) {
    SCOPED_TRACE(f->name);
    expect_gemm(1, 4501, {{256, false, false, f->name.data()}, {16, false, false}}, DType::bf16,
                DType::f32, Compute::bf16);
  }
  expect_gemm(1, 4501, {{1000, false, false}}, DType::bf16, DType::f32, Compute::bf16);
  expect_gemm(1, 2501, {{9216, false, false, "q8_0"}}, DType::f32, DType::f32, Compute::fp32);
}

TEST_F(CudaProducts, AccumulationAddsToAStorage) {
  for (const Compute compute : {Compute::fp32, Compute::bf16})
    for (const auto& [type, shape] : {std::pair{DType::f32, Shape{16, 72}},
                                      {DType::bf16, {16, 72}},
                                      {DType::f32, {200, 17}},
                                      {DType::f32, {72, 100}},
                                      {DType::f32, {1, 40}},
                                      {DType::f32, {65, 64}}}) {
      const std::int64_t m = shape[0], n = shape[1];
      const StorageRef x = numbers({700, m}, DType::bf16, 1), w = numbers({700, n}, DType::bf16, 2),
                       before = numbers({m, n}, type, 3, 10);
      const StorageRef target = resident(before, gpu()), x_here = resident(x, gpu()),
                       w_here = resident(w, gpu());
      Policy policy;
      policy.compute = compute;
      const Gemm g{static_cast<std::int32_t>(type), 1, 1, 0, 0.5f};
      run(
          [&] {
            record(op<GemmAccumulate>(), Attrs::of(GemmAccumulate{g}),
                   leaves({target, x_here, w_here}), Where::current());
            return Tensors{};
          },
          policy, gpu());
      StorageRef after = Storage::make(before->spec);
      copy_contents(*after, *target, gpu());
      std::vector<double> got, want;
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = get(*before, i * n + j);
          for (std::int64_t k = 0; k < 700; ++k)
            sum += 0.5 * get(*x, k * m + i) * get(*w, k * n + j);
          want.push_back(sum);
          got.push_back(get(*after, i * n + j));
        }
      EXPECT_LE(relative_error(got, want), type == DType::bf16 ? 4e-3 : 5e-6);
    }
}

// One side of at most 64, an adapter's rank, and the ranks beyond, which the general kernels take.
struct ThinCase {
  std::int64_t m, n, k;
  bool tx, tw;
  DType w, y;
};
void expect_thin(const ThinCase& c, float alpha) {
  SCOPED_TRACE(fmt::format("{} x {} x {}{}{}, {} to {}", c.m, c.n, c.k,
                           c.tx ? ", X transposed" : "", c.tw ? ", W transposed" : "", name_of(c.w),
                           name_of(c.y)));
  const Gemm a{static_cast<std::int32_t>(c.y), c.tx, c.tw, 0, alpha};
  expect_definition(a,
                    {numbers(c.tx ? Shape{c.k, c.m} : Shape{c.m, c.k}, DType::bf16, 1),
                     numbers(c.tw ? Shape{c.k, c.n} : Shape{c.n, c.k}, c.w, 2, 0.2)},
                    Compute::bf16,
                    {c.y == DType::bf16  ? 4e-3
                     : c.y == DType::f16 ? 4e-4
                                         : 5e-6});
}

TEST_F(CudaProducts, OfARowAndAFewColumns) {
  for (const std::int64_t rank : {1, 8, 16, 17, 32, 40, 64, 100, 256})
    for (const DType w : {DType::f32, DType::bf16})
      for (const bool tw : {false, true}) {
        expect_thin({300, rank, 520, false, tw, w, DType::bf16}, 1);
        expect_thin({1, rank, 264, false, tw, w, DType::f32}, 0.5f);
        expect_thin({130, rank, 77, false, tw, w, DType::f32}, -2);
      }
  for (const std::int64_t k : {1, 31, 32, 256, 257, 3000, 9000})
    expect_thin({1100, 16, k, false, k % 2 == 0, DType::f32, DType::bf16}, 1);
  expect_thin({1100, 32, 9000, false, true, DType::f32, DType::bf16}, 1);
  expect_thin({2500, 16, 1024, false, false, DType::f32, DType::f16}, 0.25f);
}

TEST_F(CudaProducts, OfAFewColumnsOverManyRows) {
  for (const std::int64_t rank : {1, 8, 16, 17, 32, 40, 64, 100, 256})
    for (const bool wide_w : {false, true})
      for (const std::int64_t c : {264, 75}) {
        const std::int64_t m = wide_w ? rank : c, n = wide_w ? c : rank;
        expect_thin({m, n, 700, true, true, DType::bf16, DType::f32}, 1);
        expect_thin({m, n, 33, true, true, DType::bf16, DType::bf16}, 3);
      }
  for (const std::int64_t k : {1, 127, 128, 129, 4096, 5000})
    expect_thin({16, 1032, k, true, true, DType::bf16, DType::f32}, 1);
  for (const std::int64_t rank : {32, 64})
    expect_thin({rank, 1032, 5000, true, true, DType::bf16, DType::f32}, 1);
  expect_thin({9000, 16, 300, true, true, DType::bf16, DType::f16}, 1);
}

enum class Seen { causal, packed, window, whole };  // whole: causal, and every query sees keys
struct AttentionCase {
  std::int64_t t, s, h, g, d;
  Seen seen;
};

std::vector<StorageRef> attention_inputs(const AttentionCase& c, DType q, DType kv) {
  auto end = [=](std::int64_t i) { return c.s - c.t + i; };
  auto begin = [=](std::int64_t i) {
    return c.seen == Seen::causal || c.seen == Seen::whole ? 0
           : c.seen == Seen::packed                        ? end(i) / 37 * 37
                                                           : std::max<std::int64_t>(0, end(i) - 50);
  };
  return {numbers({c.t, c.h, c.d}, q, 1), numbers({c.s, c.g, c.d}, kv, 2),
          numbers({c.s, c.g, c.d}, kv, 3), whole_numbers(c.t, begin),
          whole_numbers(c.t, [=](std::int64_t i) {
            return i % 11 == 10 && c.seen != Seen::whole ? begin(i) - 1 : end(i);
          })};
}

TEST_F(CudaProducts, AttentionOfEveryHeadSizeRangeAndTypes) {
  for (const AttentionCase& c : {AttentionCase{1, 300, 6, 2, 64, Seen::causal},
                                 {3, 177, 8, 1, 128, Seen::window},
                                 {1, 700, 4, 4, 256, Seen::causal},
                                 {70, 70, 3, 3, 16, Seen::packed},
                                 {130, 130, 6, 2, 64, Seen::packed},
                                 {130, 130, 4, 1, 128, Seen::causal},
                                 {200, 300, 2, 2, 64, Seen::window},
                                 {65, 65, 2, 1, 256, Seen::causal},
                                 {130, 130, 256, 128, 64, Seen::packed},
                                 {33, 99, 2, 2, 80, Seen::causal}})
    for (const auto& [q, kv] : {std::pair{DType::f32, DType::f32},
                                {DType::bf16, DType::bf16},
                                {DType::f32, DType::f16},
                                {DType::bf16, DType::f32}}) {
      SCOPED_TRACE(fmt::format("{} queries, {} keys, {}/{} heads of {}, {} {}", c.t, c.s, c.h, c.g,
                               c.d, name_of(q), name_of(kv)));
      const float scale = 1 / std::sqrt(static_cast<float>(c.d));
      // bf16: the probabilities are rounded before they meet the values.
      expect_definition(Attention{scale}, attention_inputs(c, q, kv), Compute::bf16,
                        {q == DType::bf16 ? 5e-3 : 3e-6, 1e-5});
    }
}

TEST_F(CudaProducts, AttentionGradientsOfEveryHeadSizeAndRange) {
  for (const AttentionCase& c : {AttentionCase{70, 70, 3, 3, 16, Seen::packed},
                                 {130, 130, 6, 2, 64, Seen::packed},
                                 {130, 130, 4, 1, 128, Seen::causal},
                                 {100, 200, 2, 2, 64, Seen::window},
                                 {700, 700, 8, 2, 128, Seen::whole},
                                 {500, 1000, 3, 1, 64, Seen::whole},
                                 {600, 600, 4, 2, 128, Seen::window},
                                 {450, 450, 4, 2, 128, Seen::causal},
                                 {130, 130, 256, 128, 64, Seen::packed},
                                 {40, 40, 2, 1, 256, Seen::causal},
                                 {3, 90, 4, 2, 128, Seen::causal}})
    for (const DType type : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(fmt::format("{} queries, {} keys, {}/{} heads of {}, {}", c.t, c.s, c.h, c.g,
                               c.d, name_of(type)));
      const float scale = 1 / std::sqrt(static_cast<float>(c.d));
      std::vector<StorageRef> in = attention_inputs(c, type, type);
      std::vector<StorageRef> wide;
      for (const auto& s : in) wide.push_back(widened(s));
      const Values forward =
          run([&] { return Attention::define(Attention{scale}, leaves(wide)); }, {}, cpu_backend());
      const StorageRef o = Storage::make(in[0]->spec),
                       lse = Storage::make({Shape{c.t, c.h}, DType::f32, nullptr});
      for (std::int64_t i = 0; i < o->spec.numel(); ++i)
        put(*o, i, forward[0][static_cast<std::size_t>(i)]);
      for (std::int64_t i = 0; i < lse->spec.numel(); ++i)
        put(*lse, i, forward[1][static_cast<std::size_t>(i)]);
      in.insert(in.end(), {o, lse, numbers(in[0]->spec.shape, type, 4)});
      // bf16: o is rounded, and so are the probabilities and their gradients.
      const double tolerance = type == DType::bf16 ? 1.2e-2 : 1e-5;
      expect_definition(AttentionGrad{scale}, in, Compute::bf16, {tolerance, tolerance, tolerance});
    }
}

TEST_F(CudaProducts, LossesOverRowsWithAndWithoutLabels) {
  struct Size {
    std::int64_t t, v, d;
    const char* format;
  };
  for (const Size& s : {Size{37, 515, 64, nullptr},
                        {300, 1003, 72, nullptr},
                        {130, 777, 64, "nf4"},
                        {200, 9000, 32, "q8_0"}})
    for (const double kept : {0.0, 0.4, 1.0})
      for (const Compute compute : {Compute::fp32, Compute::bf16}) {
        SCOPED_TRACE(fmt::format("{} rows, {} words of {}, {} labelled, compute {}", s.t, s.v, s.d,
                                 kept, name_of(compute)));
        StorageRef scale = Storage::make({Shape{1}, DType::f32, nullptr});
        put(*scale, 0, 0.25);
        const std::vector<StorageRef> in = {
            numbers({s.t, s.d}, DType::bf16, 1),
            s.format ? random_storage({Shape{s.v, s.d}, DType::quant, find_format(s.format)}, 2, 1)
                     : numbers({s.v, s.d}, DType::bf16, 2, 0.2),
            whole_numbers(s.t,
                          [&](std::int64_t i) {
                            return uniform(5, static_cast<std::uint64_t>(i)) < kept ? i * 7919 % s.v
                                                                                    : -100;
                          }),
            scale};
        const bool rounded = compute == Compute::bf16 && s.format;
        expect_definition(LinearXent{}, in, compute, {rounded ? 1e-3 : 1e-6, 8e-3});
      }
}

// Logits that grow towards the end of the vocabulary, so that sums of every slice shrink to nothing
// in the next; labels that are likely and labels that are not; more rows than a chunk has.
TEST_F(CudaProducts, TheLargestLogitMovesFromSliceToSlice) {
  const std::int64_t t = 2100, v = 9000, d = 16;
  for (const double rise : {0.0, 4.0, -4.0})
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      SCOPED_TRACE(fmt::format("rise {}, compute {}", rise, name_of(compute)));
      const StorageRef x = numbers({t, d}, DType::bf16, 1),
                       w = numbers({v, d}, DType::bf16, 2, 0.3);
      for (std::int64_t r = 0; r < t; ++r) put(*x, r * d, 8);
      for (std::int64_t i = 0; i < v; ++i)
        put(*w, i * d,
            static_cast<float>(
                bf16(static_cast<float>(rise * (static_cast<double>(i) / v - 0.5)))));
      StorageRef scale = Storage::make({Shape{1}, DType::f32, nullptr});
      put(*scale, 0, 0.5);
      const StorageRef labels =
          whole_numbers(t, [&](std::int64_t i) { return i % 3 ? v - 1 - i % 7 : i * 7919 % v; });
      expect_definition(LinearXent{}, {x, w, labels, scale}, compute, {1e-6, 8e-3});
    }
}

TEST_F(CudaProducts, ALabelOutsideOfTheVocabularyIsReported) {
  const StorageRef x = numbers({4, 32}, DType::f32, 1), w = numbers({50, 32}, DType::f32, 2),
                   labels = whole_numbers(4, [](std::int64_t i) { return i == 2 ? 50 : i; });
  StorageRef scale = Storage::make({Shape{1}, DType::f32, nullptr});
  put(*scale, 0, 1);
  Executor executor(gpu());
  Program p = Program::capture(
      [&] {
        return Tensors{linear_xent(from_storage(x), from_storage(w), from_storage(labels),
                                   from_storage(scale))};
      },
      executor);
  try {
    p.run();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("label 50 of row 2 lies outside the vocabulary of 50"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace supersonic::testing
