// FP8 E4M3 against the OCP specification, from its own words: a table of all 256 codes made of the
// fields in fp64, and rounding to the nearest of that table, ties to the even code, saturating.
#include "formats/fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "formats/format.h"

namespace supersonic::testing {
namespace {

using formats::Fp8;

// OCP OFP8 revision 1.0, table 1 and section 5.1.
double specified(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
  const double value =
      exponent == 0 ? std::ldexp(mantissa / 8.0, -6) : std::ldexp(1 + mantissa / 8.0, exponent - 7);
  return code & 0x80 ? -value : value;
}

int nearest(double x) {
  const double size = std::fabs(x);
  int best = 0;
  for (int code = 1; code < 0x7f; ++code) {
    const double now = std::fabs(specified(code) - size),
                 before = std::fabs(specified(best) - size);
    if (now < before || (now == before && code % 2 == 0)) best = code;
  }
  return best | (std::signbit(x) ? 0x80 : 0);
}

TEST(Fp8, EveryCodeHasTheSpecifiedValueAndComesBack) {
  const Format& f = *find_format("fp8");
  std::uint8_t codes[256];
  for (int c = 0; c < 256; ++c) codes[c] = static_cast<std::uint8_t>(c);
  float values[256];
  f.decode(Planes{{codes}}, 0, 256, values);
  for (int c = 0; c < 256; ++c) {
    const double want = specified(c);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(values[c])) << c;
    } else {
      EXPECT_EQ(values[c], want) << c;
      EXPECT_EQ(std::signbit(values[c]), c >= 0x80) << c;
    }
    EXPECT_EQ(Fp8::code(values[c]), c);
  }
}

TEST(Fp8, RoundsToTheNearestAndHalvesToEven) {
  std::mt19937 rng(3);
  const auto check = [](float x) { EXPECT_EQ(Fp8::code(x), nearest(x)) << x; };
  for (int c = 0; c < 0x7e; ++c) {
    const auto low = static_cast<float>(specified(c)), high = static_cast<float>(specified(c + 1)),
               middle = (low + high) / 2;
    for (float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)})
      check(x), check(-x);
  }
  for (int i = 0; i < 20000; ++i) {
    std::uniform_real_distribution<float> exponent(-14, 9.5f), sign(-1, 1);
    check(std::copysign(std::exp2(exponent(rng)), sign(rng)));
  }
}

TEST(Fp8, SaturatesAndKeepsNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float x : {448.0f, 449.0f, 463.9f, 464.0f, 479.0f, 480.0f, 1e30f, infinity}) {
    EXPECT_EQ(Fp8::code(x), 0x7e) << x;
    EXPECT_EQ(Fp8::code(-x), 0xfe) << x;
  }
  EXPECT_TRUE(std::isnan(Fp8::value(Fp8::code(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(Fp8::code(0x1p-10f), 0);  // half of the smallest: to even
  EXPECT_EQ(Fp8::code(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(Fp8::code(-0.0f), 0x80);
}

}  // namespace
}  // namespace supersonic::testing
