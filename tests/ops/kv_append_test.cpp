// Writing to a KV cache: rows land where `at` says and nowhere else, and read back as the nearest
// values that the cache's type has; attention on them sees what was written.
#include "ops/kv_append.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "op_harness.h"
#include "ops/dequantize.h"
#include "ops/view.h"

namespace supersonic::testing {
namespace {

constexpr std::int64_t kRows = 12, kHeads = 3, kSize = 64;

StorageRef cache_of(const char* type) {
  const Format* f = find_format(type);
  return Storage::make({{kRows, kHeads, kSize}, f ? DType::quant : DType::bf16, f}, "cache");
}

StorageRef rows_of(DType type, std::int64_t n, double size) {
  StorageRef x = Storage::make({{n, kHeads, kSize}, type, nullptr}, "rows");
  for (std::int64_t i = 0; i < x->spec.numel(); ++i) put(*x, i, size * gaussian(5, i));
  return x;
}

// Appends at row `at`, reads the whole cache.
std::vector<double> appended(const StorageRef& cache, const StorageRef& x, int at) {
  const StorageRef place = Storage::make({{1}, DType::i32, nullptr});
  *place->as<std::int32_t>() = at;
  return run(
      [&] {
        kv_append(from_storage(cache), from_storage(x), from_storage(place));
        return Tensors{dequantize(from_storage(cache), DType::f32)};
      },
      {}, cpu_backend())[0];
}

// The largest error that rounding x may make. Half a unit of the last place: 2^-9 of bf16, 2^-4 of
// FP8 and 2^-10 below 2^-6; of Q8_0 half a step of the block's largest / 127, and what the 16-bit
// scale is off by (2^-11 of itself, or half of binary16's smallest).
double allowed(const char* type, const Storage& x, std::int64_t i) {
  const double value = std::fabs(get(x, i));
  if (!find_format(type)) return value * 0x1p-8;
  if (std::string(type) == "fp8") return std::max(value * 0x1p-4, 0x1p-10);
  double largest = 0;
  for (std::int64_t k = i / 32 * 32; k < i / 32 * 32 + 32; ++k)
    largest = std::max(largest, std::fabs(get(x, k)));
  return largest / 127 * 0.5 * (1 + 0x1p-10) + largest * 0x1p-11 + 127 * 0x1p-25;
}

TEST(KvAppend, RowsLandWhereTheyShouldAndReadBackRounded) {
  for (const char* type : {"bf16", "q8_0", "fp8"})
    for (DType from : {DType::f32, DType::bf16, DType::f16})
      for (double size : {1e-3, 1.0, 60.0}) {
        SCOPED_TRACE(fmt::format("{} from {} of {}", type, name_of(from), size));
        const StorageRef cache = cache_of(type), x = rows_of(from, 5, size);
        const auto got = appended(cache, x, 4);
        const std::int64_t row = kHeads * kSize;
        for (std::int64_t i = 0; i < kRows * row; ++i) {
          const bool written = i >= 4 * row && i < 9 * row;
          const std::int64_t k = i - 4 * row;
          ASSERT_LE(std::fabs(got[i] - (written ? get(*x, k) : 0)),
                    written ? allowed(type, *x, k) : 0)
              << i;
        }
        const auto more = appended(cache, rows_of(from, 1, size), 0);  // the others stay
        for (std::int64_t i = row; i < kRows * row; ++i) ASSERT_EQ(more[i], got[i]);
      }
}

TEST(KvAppend, WhatNoCodeHoldsSaturatesOrIsNoticed) {
  const float infinity = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  const float large[] = {1e6f, -infinity, nan};
  for (const char* type : {"q8_0", "fp8"})
    for (float value : large) {
      const StorageRef x = rows_of(DType::f32, 1, 1);
      x->as<float>()[40] = value;
      const auto got = appended(cache_of(type), x, 0);
      if (std::string(type) == "fp8" && value == value)
        EXPECT_EQ(got[40], std::copysign(448.0, value));
      else
        EXPECT_TRUE(std::isnan(got[40])) << type << value;
      EXPECT_FALSE(std::isnan(got[31]) || std::isnan(got[64])) << "another block of " << type;
    }
}

TEST(KvAppend, RowsOutsideOfTheCacheAreRefused) {
  for (const char* type : {"bf16", "q8_0", "fp8"})
    for (int at : {-1, 8, 12})
      EXPECT_THROW(appended(cache_of(type), rows_of(DType::f32, 5, 1), at), Error) << type;
}

TEST(KvAppend, OnlyTheFirstRowsOfACodedCacheAreAView) {
  const StorageRef cache = cache_of("q8_0");
  const Tensor whole = from_storage(cache);
  EXPECT_EQ(slice(whole, 0, 0, 4).spec().format, cache->spec.format);
  EXPECT_THROW(slice(whole, 0, 1, 4), Error);
  EXPECT_THROW(slice(whole, 2, 0, 32), Error);
  EXPECT_THROW(reshape(whole, {kRows * kHeads, kSize}), Error);
  Tape::current().nodes().clear();
}

TEST(KvAppend, BytesAreThoseOfItsRows) {
  EXPECT_EQ(cache_of("bf16")->bytes, 2u * kRows * kHeads * kSize);
  EXPECT_EQ(cache_of("fp8")->bytes, 1u * kRows * kHeads * kSize);
  EXPECT_EQ(cache_of("q8_0")->bytes, 34u * kRows * kHeads * kSize / 32);
}

}  // namespace
}  // namespace supersonic::testing
