// KV caches of 8 bits on the GPU. Appended rows: the bytes that the CPU writes. Attention: fp64 on
// the decoded codes, few queries (on the codes as they lie) and many (on decoded heads), all codes
// exactly. Skipped where no GPU answers.
#include <gtest/gtest.h>

#include "../core/tiny_model.h"
#include "../infer/random_model.h"
#include "infer/session.h"
#include "ops/kv_append.h"

namespace supersonic::testing {
namespace {

constexpr const char* kFormats[] = {"q8_0", "fp8"};

class CudaCache : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_gpus(&why).empty()) GTEST_SKIP() << why;
  }
  Backend& gpu() { return device_backend("cuda"); }
};

Spec coded(Shape shape, const char* format) { return {shape, DType::quant, find_format(format)}; }
StorageRef numbers(Shape shape, DType type, std::uint64_t seed, double size = 1) {
  return random_storage({shape, type, nullptr}, seed, size);
}
StorageRef whole_numbers(std::int64_t n, const std::function<std::int64_t(std::int64_t)>& value) {
  StorageRef s = Storage::make({Shape{n}, DType::i32, nullptr});
  for (std::int64_t i = 0; i < n; ++i)
    s->as<std::int32_t>()[i] = static_cast<std::int32_t>(value(i));
  return s;
}

// The bytes of a cache of 9 rows after x was appended at row `at`.
std::vector<std::byte> appended(Backend& b, const StorageRef& x, const char* format, int at) {
  const StorageRef start =
                       random_storage(coded({9, x->spec.shape[1], x->spec.shape[2]}, format), 7, 1),
                   cache = apart(b) ? resident(start, b) : start,
                   place = whole_numbers(1, [=](std::int64_t) { return at; });
  Executor executor(b);
  Program p = Program::capture(
      [&] {
        kv_append(from_storage(cache), from_storage(x), from_storage(place));
        return Tensors{};
      },
      executor);
  p.run();
  const StorageRef home = Storage::make(cache->spec);
  copy_contents(*home, *cache, b);
  return bytes_in(*home);
}

TEST_F(CudaCache, AppendedRowsHaveTheBytesThatTheCpuWrites) {
  for (const char* format : kFormats)
    for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f64})
      for (const double size : {1e-7, 1e-3, 1.0, 60.0}) {
        SCOPED_TRACE(fmt::format("{} from {} of {}", format, name_of(type), size));
        const StorageRef x = numbers({5, 3, 96}, type, 5, size);
        EXPECT_EQ(appended(gpu(), x, format, 4), appended(cpu_backend(), x, format, 4));
      }
}

TEST_F(CudaCache, WhatNoCodeHoldsIsWrittenAsTheCpuWritesIt) {
  const StorageRef x = numbers({6, 1, 64}, DType::f32, 3);
  auto* v = x->as<float>();
  const float odd[] = {INFINITY, -INFINITY, NAN,    -NAN,   1e6f,   -70000.0f,
                       65504.0f, 448.0f,    464.0f, 480.0f, 1e-40f, -0.0f};
  for (std::size_t i = 0; i < std::size(odd); ++i) v[32 * i + 7] = odd[i];
  std::fill(v + 32, v + 64, 0.0f), v[32] = -0.0f;  // zeros alone, the first one negative
  for (int i = 0; i < 32; ++i) v[64 + i] = static_cast<float>(i - 16) * 0.5f;  // ties
  v[64] = 63.5f;
  for (const char* format : kFormats)
    EXPECT_EQ(appended(gpu(), x, format, 0), appended(cpu_backend(), x, format, 0)) << format;
}

TEST_F(CudaCache, RowsOutsideOfACacheAreReported) {
  const StorageRef x = numbers({3, 1, 64}, DType::bf16, 3);
  for (const char* format : kFormats)
    for (const int at : {-1, 7})
      EXPECT_THROW(appended(gpu(), x, format, at), Error) << format << " " << at;
}

struct Call {
  std::int64_t t, s, h, g, d;
  std::int64_t window = 1 << 20;
};
std::vector<StorageRef> inputs_of(const Call& c, DType q, const char* format) {
  auto end = [=](std::int64_t i) { return c.s - c.t + i; };
  return {numbers({c.t, c.h, c.d}, q, 1), random_storage(coded({c.s, c.g, c.d}, format), 2, 1),
          random_storage(coded({c.s, c.g, c.d}, format), 3, 1),
          whole_numbers(
              c.t, [=](std::int64_t i) { return std::max<std::int64_t>(0, end(i) - c.window); }),
          // Now and then a row that sees nothing.
          whole_numbers(c.t, [=](std::int64_t i) { return i % 11 == 10 ? -1 : end(i); })};
}
Tensors leaves(const std::vector<StorageRef>& in) {
  Tensors t;
  for (const auto& s : in) t.push_back(from_storage(s));
  return t;
}

void expect_definition(Backend& b, const Call& c, DType q, const char* format,
                       const std::vector<StorageRef>& in) {
  SCOPED_TRACE(fmt::format("{} queries, {} keys, {}/{} heads of {}, {} on {}", c.t, c.s, c.h, c.g,
                           c.d, name_of(q), format));
  const Attention a{1 / std::sqrt(static_cast<float>(c.d))};
  std::vector<StorageRef> wide;
  for (const auto& s : in) wide.push_back(widened(s));
  const auto want = run([&] { return Attention::define(a, leaves(wide)); }, {}, cpu_backend());
  for (const bool aligned : {true, false}) {
    std::vector<StorageRef> here = placed(in, b);
    if (aligned)
      for (std::size_t i = 0; i < in.size(); ++i) here[i] = resident(in[i], b);
    Policy policy;
    policy.compute = Compute::bf16;
    auto both = [&] {
      return record(op<Attention>(), Attrs::of(a), leaves(here), Where::current());
    };
    const auto got = run(both, policy, b), again = run(both, policy, b),
               alone = run([&] { return Tensors{both()[0]}; }, policy, b);
    // bf16: the result is rounded, and so are decoded keys, values and weights of many queries.
    EXPECT_LE(relative_error(got[0], want[0]), q == DType::bf16 ? 6e-3 : 3e-6);
    const bool rounded = q == DType::bf16 && (c.t > 4 || c.d % 64);
    EXPECT_LE(relative_error(got[1], want[1]), rounded ? 1e-3 : 1e-5);
    EXPECT_EQ(got, again);
    EXPECT_EQ(got[0], alone[0]);
  }
}

TEST_F(CudaCache, AttentionEqualsTheDefinitionOnTheDecodedCodes) {
  for (const Call& c : {Call{1, 1, 4, 1, 64},
                        {1, 300, 6, 2, 64},
                        {1, 256, 32, 8, 128},
                        {1, 2900, 32, 8, 128},
                        {1, 9000, 4, 1, 64},
                        {1, 700, 4, 4, 256},
                        {2, 333, 7, 1, 128, 60},
                        {3, 177, 8, 1, 128, 50},
                        {4, 900, 16, 2, 64},
                        {4, 75, 8, 2, 256, 10},
                        {1, 301, 6, 2, 96},
                        {5, 90, 8, 2, 128},
                        {70, 131, 9, 3, 64},
                        {200, 300, 4, 2, 128, 70},
                        {65, 65, 2, 1, 256},
                        {33, 99, 2, 2, 32}})
    for (const char* format : kFormats)
      for (const DType q : {DType::bf16, DType::f32})
        expect_definition(gpu(), c, q, format, inputs_of(c, q, format));
}

TEST_F(CudaCache, AQueryThatSeesNothingGivesZeros) {
  for (const std::int64_t t : {1, 2, 70})
    for (const char* format : kFormats) {
      std::vector<StorageRef> in = inputs_of({t, 200, 8, 2, 128}, DType::bf16, format);
      in[4] = whole_numbers(t, [](std::int64_t) { return -1; });
      expect_definition(gpu(), {t, 200, 8, 2, 128}, DType::bf16, format, in);
    }
}

// Scores of 40 and more, and rows of q that fp16 has no numbers for: their power of two is taken
// out.
TEST_F(CudaCache, QueriesOfAnySizeKeepTheirScores) {
  for (const double size : {1e-30, 1e-6, 200.0, 1e6})
    for (const char* format : kFormats) {
      std::vector<StorageRef> in = inputs_of({1, 500, 8, 2, 128}, DType::bf16, format);
      in[0] = numbers({1, 8, 128}, DType::bf16, 1, size);
      expect_definition(gpu(), {1, 500, 8, 2, 128}, DType::bf16, format, in);
    }
}

// A query that sees one key gives that key's values as bf16: every code at every place of a head.
TEST_F(CudaCache, EveryCodeIsReadExactly) {
  for (const char* format : kFormats)
    for (const std::int64_t d : {64, 128, 256})
      for (const std::int64_t t : {1, 40}) {
        const std::int64_t rows = 256 / d * 32;  // each row's codes begin 8 further on
        const StorageRef k = random_storage(coded({rows, 1, d}, format), 4, 1),
                         v = random_storage(coded({rows, 1, d}, format), 5, 1);
        const auto block = static_cast<std::int64_t>(v->spec.format->block_bytes),
                   codes = static_cast<std::int64_t>(v->spec.format->block);
        for (std::int64_t i = 0; i < rows * d; ++i) {
          auto code = static_cast<std::uint8_t>(i % d + i / d * 8);
          // Among many queries a NaN would be met by keys that are masked.
          if (t > 1 && codes == 1 && code % 128 == 127) code = 0;
          v->as<std::uint8_t>()[i / codes * block + (block - codes) + i % codes] = code;
        }
        std::vector<float> want(static_cast<std::size_t>(rows * d));
        v->spec.format->decode(v->planes, 0, rows * d, want.data());
        const StorageRef q = numbers({t, 1, d}, DType::bf16, 1, 0);
        for (std::int64_t key = 0; key < rows; key += 7) {
          const StorageRef at = whole_numbers(t, [=](std::int64_t) { return key; });
          const auto got = run(
              [&] {
                return Tensors{attention(from_storage(q), from_storage(k), from_storage(v),
                                         from_storage(at), from_storage(at), 1)};
              },
              {}, gpu())[0];
          for (std::size_t i = 0; i < got.size(); ++i) {
            const float
                w = want[static_cast<std::size_t>(key * d) + i % static_cast<std::size_t>(d)],
                rounded = static_cast<float>(bf16(w));
            // Times its scale, a code of Q8_0 rounds to 11 bits before it rounds to 8.
            const float slack = codes > 1 ? std::fabs(w) * 0x1p-10f : 0;
            ASSERT_TRUE((std::isnan(got[i]) && std::isnan(w)) ||
                        std::fabs(got[i] - w) <= std::fabs(rounded - w) + slack)
                << format << " d " << d << " key " << key << " at " << i << ": " << got[i]
                << " for " << w;
          }
        }
      }
}

// So many keys that not all heads are decoded at once: each head's values are its number.
TEST_F(CudaCache, ALongContextIsDecodedSomeHeadsAtATime) {
  constexpr std::int64_t kKeys = 180000, kHeads = 4, kSize = 64, kQueries = 70;
  const StorageRef v = Storage::make(coded({kKeys, kHeads, kSize}, "fp8"));
  const Format& f = *v->spec.format;
  for (std::int64_t h = 0; h < kHeads; ++h) {
    const float value = static_cast<float>(h + 1);
    std::uint8_t code = 0;
    void* planes[kMaxPlanes] = {&code};
    f.encode(&value, 1, 1, planes);
    for (std::int64_t key = 0; key < kKeys; ++key)
      std::fill_n(v->as<std::uint8_t>() + (key * kHeads + h) * kSize, kSize, code);
  }
  const StorageRef there = resident(v, gpu()),
                   q = numbers({kQueries, 2 * kHeads, kSize}, DType::bf16, 1),
                   lo = whole_numbers(kQueries, [](std::int64_t i) { return 900 * i; }),
                   hi = whole_numbers(kQueries, [](std::int64_t i) { return kKeys - 1 - i; });
  auto fn = [&] {
    return Tensors{attention(from_storage(q), from_storage(there), from_storage(there),
                             from_storage(lo), from_storage(hi), 0.01f)};
  };
  EXPECT_LT(plan_only(fn, gpu(), {})->peak(gpu().compute_place()), std::size_t{100} << 20);
  const auto got = run(fn, {}, gpu())[0];
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], static_cast<double>(i / kSize % (2 * kHeads) / 2 + 1), 0.03) << i;
}

TEST_F(CudaCache, SessionsDecodeOnItAsTheyReadPrompts) {
  models::Model model = random_model(0, 64);
  models::make_resident(model, gpu());
  Executor executor(gpu());
  const std::vector<std::int32_t> ids = random_ids(75, model.config.vocab_size);
  for (const char* format : kFormats) {
    std::vector<std::vector<float>> logits;
    for (const auto& [chunk, compute] : {std::pair{std::int64_t{64}, Compute::fp32},
                                         {64, Compute::bf16},
                                         {3, Compute::bf16},
                                         {1, Compute::bf16}}) {
      infer::SessionOptions o;
      o.compute = compute, o.kv_type = {DType::quant, find_format(format)}, o.chunk = chunk;
      infer::Session session(model, executor, o);
      const auto row = session.feed(ids);
      logits.emplace_back(row.begin(), row.end());
      // bf16 activations, and values that fall to the neighbouring code.
      EXPECT_LE(relative_difference(logits.back(), logits.front()), 0.05)
          << format << ", chunk " << chunk;
    }
  }
}

}  // namespace
}  // namespace supersonic::testing
