// The decoders of the products' loops against the formats' own scalar definition, bit for bit: any
// bytes (so also infinite, NaN and negative scales), whole groups and ranges that begin and end
// inside of groups. Gemm.holds_for_every_instruction_set_below_this_machines runs it again there.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/kernels/gemm_source.h"
#include "support/scales.h"

namespace supersonic::cpu {
namespace {

constexpr std::int64_t kRows = 3;

// kRows rows of random bytes; a third of the formats' blocks get scales of a usual size.
std::vector<std::uint8_t> random_blocks(const Format& f, std::int64_t cols, std::mt19937& rng) {
  std::vector<std::uint8_t> bytes(f.plane_bytes(f, 0, kRows, cols));
  for (auto& b : bytes) b = static_cast<std::uint8_t>(rng());
  for (std::size_t b = 0; b < bytes.size(); b += 3 * static_cast<std::size_t>(f.block_bytes))
    testing::set_scale(f, bytes.data() + b, 0.01f);
  return bytes;
}

void expect_same(const Format& f, const Source& s, const std::vector<float>& all,
                 std::int64_t first, std::int64_t count) {
  std::vector<float> out(static_cast<std::size_t>(count) + 1, 12345.0f);
  gemm_parts::inner().to_f32(s, first, count, out.data());
  EXPECT_EQ(out.back(), 12345.0f) << f.name << ": wrote behind the end";
  for (std::int64_t i = 0; i < count; ++i) {
    const float got = out[static_cast<std::size_t>(i)];
    const float want = all[static_cast<std::size_t>(first + i)];
    if (std::isnan(got) && std::isnan(want)) continue;
    ASSERT_EQ(std::memcmp(&got, &want, 4), 0)
        << f.name << " weight " << first + i << " is " << got << ", must be " << want;
  }
}

TEST(Gemm, decoders_of_the_loops_equal_the_formats_bit_for_bit) {
  std::mt19937 rng(11);
  for (const Format* f : all_formats()) {
    if (f->planes != 1) continue;
    for (const std::int64_t cols :
         {std::int64_t{f->block}, std::int64_t{f->block} * 5, std::int64_t{2560}}) {
      const auto bytes = random_blocks(*f, cols, rng);
      MatrixRef ref;
      ref.dtype = DType::quant, ref.format = f, ref.rows = kRows, ref.cols = cols;
      ref.planes.data[0] = bytes.data();
      const Source s = gemm_parts::source_of(ref);
      ASSERT_NE(s.codec, Codec::other) << f->name;
      std::vector<float> all(static_cast<std::size_t>(kRows * cols));
      f->decode(ref.planes, 0, kRows * cols, all.data());
      expect_same(*f, s, all, 0, kRows * cols);
      for (int i = 0; i < 40; ++i) {
        const auto first = static_cast<std::int64_t>(rng() % static_cast<unsigned>(kRows * cols));
        const auto left = static_cast<unsigned>(kRows * cols - first);
        expect_same(*f, s, all, first, static_cast<std::int64_t>(rng() % left + 1));
        expect_same(*f, s, all, first / 32 * 32, (kRows * cols - first) / 32 * 32);
      }
    }
  }
}

// int8 loops add pairs of products in 16 bits and trust what affine_of() says of a format's codes.
TEST(Gemm, packed_codes_scales_and_minima_are_the_weights) {
  std::mt19937 rng(12);
  constexpr std::int64_t kCols = 1280;
  for (const Format* f : all_formats()) {
    const Affine a = f->planes == 1 ? affine_of(gemm_parts::codec_of({.format = f})) : Affine{};
    if (!a.supported) continue;
    auto bytes = random_blocks(*f, kCols, rng);
    for (std::size_t b = 0; b < bytes.size(); b += static_cast<std::size_t>(f->block_bytes))
      if (!f->encode) testing::set_scale(*f, bytes.data() + b, 0.01f);
    MatrixRef ref;
    ref.dtype = DType::quant, ref.format = f, ref.rows = kRows, ref.cols = kCols;
    ref.planes.data[0] = bytes.data();
    std::vector<float> all(kRows * kCols);
    f->decode(ref.planes, 0, kRows * kCols, all.data());
    const int width = gemm_parts::inner().nr, parts = a.halves ? 2 : 1;
    const int group_bytes = width * (32 + 4 * parts * (a.has_min ? 2 : 1));
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(kCols / 32 * group_bytes));
    gemm_parts::inner().pack_int8(gemm_parts::source_of(ref), a, 0, kRows, width, 0, kCols / 32,
                                  packed.data());
    for (std::int64_t i = 0; i < kRows * kCols; ++i) {
      const std::int64_t c = i / kCols, g = i % kCols / 32, j = i % 32;
      const std::uint8_t* group = packed.data() + g * group_bytes;
      const int code = group[(j / 4 * width + c) * 4 + j % 4];
      ASSERT_LE(code, a.top) << f->name;
      const auto number = [&](std::int64_t at) {
        float x;
        std::memcpy(&x, group + width * 32 + (at * width + c) * 4, 4);
        return x;
      };
      const std::int64_t part = a.halves ? j / 16 : 0;
      const double min = a.has_min ? number(parts + part) : 0.0f;
      const double want = all[static_cast<std::size_t>(i)],
                   got = number(part) * (code - a.zero) + min;
      if (!std::isfinite(want)) continue;
      ASSERT_LE(std::fabs(got - want), 0x1p-22 * (std::fabs(want) + std::fabs(min)))
          << f->name << " weight " << i;
    }
  }
}

}  // namespace
}  // namespace supersonic::cpu
