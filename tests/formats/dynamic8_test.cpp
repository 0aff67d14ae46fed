// The 8-bit dynamic maps against bitsandbytes, and the fast encoder against a search over all 256
// values.
#include "formats/dynamic8.h"

#include <bit>
#include <cmath>

#include "golden.h"

namespace supersonic::testing {
namespace {

using formats::Dynamic8;

const std::pair<std::string, const Dynamic8*> kMaps[] = {{"signed", &formats::kDynamicSigned},
                                                         {"unsigned", &formats::kDynamicUnsigned}};

// Distances are exact in double: of two equally near values the smaller.
int nearest_by_search(const Dynamic8& map, float x) {
  int best = 0;
  for (int c = 1; c < 256; ++c) {
    if (std::abs(double{map.values[c]} - x) < std::abs(double{map.values[best]} - x)) best = c;
  }
  return best;
}

TEST(Dynamic8, ValuesEqualBitsandbytesBitForBit) {
  auto golden = read_golden("dynamic8.bin");
  for (auto& [name, map] : kMaps) {
    EXPECT_TRUE(same_bits({map->values, map->values + 256}, as<float>(golden[name + ".values"])))
        << name;
  }
}

TEST(Dynamic8, CodesOf65536EvenStepsEqualBitsandbytes) {
  auto golden = read_golden("dynamic8.bin");
  for (auto& [name, map] : kMaps) {
    const auto first = as<std::int32_t>(golden[name + ".first_steps"]);
    std::vector<std::int32_t> found(256, -1);
    int previous = 0;
    for (int step = 0; step < 65536; ++step) {
      const int code = map->encode(-1.0f + 2.0f * static_cast<float>(step) / 65535.0f);
      EXPECT_GE(code, previous);
      if (found[code] < 0) found[code] = step;
      previous = code;
    }
    EXPECT_EQ(found, first) << name;
  }
}

TEST(Dynamic8, EveryValueIsItsOwnCodeAndMiddlesGoDown) {
  for (auto& [name, map] : kMaps) {
    for (int c = 0; c < 256; ++c) EXPECT_EQ(map->encode(map->values[c]), c) << name;
    for (int c = 0; c < 255; ++c) {
      EXPECT_EQ(map->encode(map->middles[c]), c) << name;
      EXPECT_EQ(map->encode(std::nextafter(map->middles[c], 2.0f)), c + 1) << name;
      EXPECT_EQ(map->encode(std::nextafter(map->middles[c], -2.0f)), c) << name;
    }
  }
}

// Every 20011th float in [-1, 1]; the middle of two values, once rounded, may sit a bit off their
// exact middle.
TEST(Dynamic8, EncodeIsTheNearestValue) {
  for (auto& [name, map] : kMaps) {
    for (std::uint32_t bits = 0; bits <= 0x3f800000u; bits += 20011) {
      for (float x : {std::bit_cast<float>(bits), -std::bit_cast<float>(bits)}) {
        const int code = map->encode(x), expected = nearest_by_search(*map, x);
        if (code == expected) continue;
        const double off = std::abs(std::abs(double{map->values[code]} - x) -
                                    std::abs(double{map->values[expected]} - x));
        EXPECT_LE(off, std::abs(x) * 0x1p-22) << name << " " << x;
      }
    }
  }
}

TEST(Dynamic8, BlocksScaleByTheirLargestMagnitude) {
  const auto x = weights(21, 256, true);
  for (auto& [name, map] : kMaps) {
    auto input = x;
    if (name == "unsigned") {
      for (float& v : input) v = v * v;
    }
    std::uint8_t codes[256];
    float decoded[256], expected = 0;
    for (float v : input) expected = std::max(expected, std::abs(v));
    const float largest = map->encode_block(input.data(), 256, codes);
    EXPECT_EQ(largest, expected);
    map->decode_block(codes, 256, largest, decoded);
    for (int i = 0; i < 256; ++i) {
      EXPECT_EQ(codes[i], map->encode(input[i] * (1 / largest)));
      if (std::abs(input[i]) <= 0.1f * largest) continue;
      // Half a cell of the first decade: (1 - 0.1) / 64 / 2 at most.
      EXPECT_NEAR(decoded[i], input[i], largest * 0.00704f);
    }
  }
}

TEST(Dynamic8, ZeroAndVanishingBlocksDecodeToZero) {
  for (auto& [name, map] : kMaps) {
    for (float level : {0.0f, 1e-45f, 2e-39f}) {
      const std::vector<float> x(37, level);
      std::uint8_t codes[37];
      EXPECT_EQ(map->encode_block(x.data(), 37, codes), 0.0f);
      float decoded[37];
      map->decode_block(codes, 37, 0.0f, decoded);
      for (float v : decoded) EXPECT_EQ(v, 0.0f);
    }
    const std::vector<float> small(5, 1e-37f);
    std::uint8_t codes[5];
    EXPECT_EQ(map->encode_block(small.data(), 5, codes), 1e-37f);
    for (auto c : codes) EXPECT_EQ(c, 255);
  }
}

}  // namespace
}  // namespace supersonic::testing
