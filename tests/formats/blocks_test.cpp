// The GGUF block codecs against gguf-py: decoding bit for bit, encoding byte for byte; then what
// must hold of any codec.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "formats/q5_k.h"
#include "golden.h"

namespace supersonic::testing {
namespace {

constexpr std::string_view kGguf[] = {
    "q4_0",  "q4_1",    "q5_0",   "q5_1",    "q8_0",  "q2_k",   "q3_k",  "q4_k",  "q5_k",
    "q6_k",  "iq2_xxs", "iq2_xs", "iq3_xxs", "iq1_s", "iq4_nl", "iq3_s", "iq2_s", "iq4_xs",
    "iq1_m", "tq1_0",   "tq2_0",  "mxfp4",   "nvfp4", "q1_0",   "q2_0"};
constexpr std::string_view kExact[] = {"q4_0", "q4_1", "q5_0", "q5_1",
                                       "q8_0"};  // gguf-py encodes these

std::vector<float> special_rows() { return as<float>(read_golden("encoded.bin")["weights"]); }

TEST(Blocks, DecodeEqualsGgufBitForBit) {
  auto golden = read_golden("decoded.bin");
  for (auto name : kGguf) {
    const Bytes& bytes = golden[std::string(name) + ".bytes"];
    const auto expected = as<float>(golden[std::string(name) + ".weights"]);
    ASSERT_FALSE(expected.empty());
    ASSERT_EQ(bytes.size(),
              total_bytes(format(name), 1, static_cast<std::int64_t>(expected.size())));
    EXPECT_TRUE(same_bits(decode(format(name), bytes, static_cast<std::int64_t>(expected.size())),
                          expected))
        << name;
  }
}

TEST(Blocks, GoldenBlocksHoldEveryByteValue) {
  auto golden = read_golden("decoded.bin");
  for (auto name : kGguf) {
    const Bytes& bytes = golden[std::string(name) + ".bytes"];
    bool seen[256] = {};
    for (auto b : bytes) seen[b] = true;
    for (bool s : seen) EXPECT_TRUE(s) << name;
  }
}

TEST(Blocks, DecodeOfAPartEqualsThatPartOfTheWhole) {
  auto golden = read_golden("decoded.bin");
  for (auto name : kGguf) {
    const Format& f = format(name);
    const Bytes& bytes = golden[std::string(name) + ".bytes"];
    const auto whole = as<float>(golden[std::string(name) + ".weights"]);
    for (int first : {0, 1, 3}) {
      for (int count : {0, 1, f.block - 1, f.block, f.block + 1, 3 * f.block + 5}) {
        const auto from = whole.begin() + first * f.block;
        EXPECT_TRUE(same_bits(decode(f, Planes{{bytes.data()}}, first * f.block, count),
                              {from, from + count}))
            << name << " " << first << " " << count;
      }
    }
  }
}

TEST(Blocks, DecodesAtCompileTime) {
  constexpr float last = [] {
    formats::Q5_K::Block b{};
    b.d = f16(0.5f);
    b.dmin = f16(2.0f);
    for (auto& s : b.scales) s = 0xff;  // every scale and minimum 63
    b.qs[127] = 0x90;
    b.qh[31] = 0x80;
    float out[256] = {};
    formats::Q5_K::decode(b, out);
    return out[255];
  }();
  static_assert(last == 0.5f * 63 * 25 - 2.0f * 63);
  EXPECT_EQ(last, 661.5f);
}

TEST(Blocks, EncodeEqualsGgufByteForByte) {
  auto golden = read_golden("encoded.bin");
  const auto w = special_rows();
  for (auto name : kExact)
    EXPECT_EQ(encode(format(name), w, 7, 96).planes[0], golden[std::string(name)]) << name;
}

TEST(Blocks, TernaryEncodersEqualGgufByteForByteAndKeepTernaryWeights) {
  auto golden = read_golden("encoded.bin");
  const auto w = as<float>(golden["wide.weights"]);
  for (std::string name : {"tq1_0", "tq2_0"}) {
    EXPECT_EQ(encode(format(name), w, 7, 256).planes[0], golden[name]) << name;
    auto ternary = weights(3, 4 * 256, false);
    for (std::size_t i = 0; i < ternary.size(); ++i) {
      const float d = 0.125f * static_cast<float>(1 + i / 256);
      ternary[i] = ternary[i] > 0.2f ? d : ternary[i] < -0.2f ? -d : 0.0f;
    }
    EXPECT_TRUE(same_bits(
        decode(format(name), encode(format(name), ternary, 4, 256).view(), 0, 4 * 256), ternary))
        << name;
  }
}

TEST(Blocks, Mxfp4EncodesWhatItDecodes) {
  auto golden = read_golden("decoded.bin");
  const Format& f = format("mxfp4");
  auto w = as<float>(golden["mxfp4.weights"]);  // every code under exponents of all sizes
  std::size_t kept = 0;
  for (std::size_t block = 0; block < w.size(); block += 32) {
    std::vector<float> x(w.begin() + static_cast<long>(block),
                         w.begin() + static_cast<long>(block) + 32);
    bool small = true;
    for (float& v : x) small = small && std::abs(v) <= 65504, v += 0.0f;  // -0 is 0
    if (!small) continue;
    auto back = decode(f, encode(f, x, 1, 32).view(), 0, 32);
    EXPECT_EQ(back, x) << block;
    ++kept;
  }
  EXPECT_GT(kept, 20u);
}

TEST(Blocks, RoundingGoesToTheNearestAndHalvesAwayFromZero) {
  for (int q = 0; q < 130; ++q) {
    const float half = static_cast<float>(q) + 0.5f;
    for (float x : {half, std::nextafter(half, 0.0f), std::nextafter(half, 200.0f)}) {
      EXPECT_EQ(formats::round_half_away(x), static_cast<int>(std::round(x))) << x;
      EXPECT_EQ(formats::round_half_away(-x), static_cast<int>(std::round(-x))) << x;
    }
  }
}

TEST(Blocks, RowsEncodeAloneAsTogether) {
  const auto w = weights(11, 5 * 512, true);
  for (auto name : kGguf) {
    const Format& f = format(name);
    if (!f.encode) continue;
    const Bytes together = encode(f, w, 5, 512).planes[0];
    const std::size_t row_bytes = together.size() / 5;
    for (int r = 0; r < 5; ++r) {
      const std::vector<float> row(w.begin() + r * 512, w.begin() + (r + 1) * 512);
      const Bytes alone = encode(f, row, 1, 512).planes[0];
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(),
                             together.begin() + r * static_cast<long>(row_bytes)))
          << name;
    }
  }
}

// Decoded weights encode to weights that decode the same, so that a file may be converted twice
// without a further loss. The plain codecs find their own scale again: the farthest code carries
// it.
TEST(Blocks, EncodingIsIdempotent) {
  for (auto name : kExact) {
    const Format& f = format(name);
    for (bool heavy : {false, true}) {
      const Encoded once = encode(f, weights(12, 64 * 96, heavy), 64, 96);
      const auto decoded = decode(f, once.view(), 0, 64 * 96);
      const Encoded twice = encode(f, decoded, 64, 96);
      EXPECT_TRUE(same_bits(decode(f, twice.view(), 0, 64 * 96), decoded)) << name;
    }
  }
}

// Rounding errs by at most half a step, 16-bit scales by a further 2^-11 of the largest weight.
TEST(Blocks, ErrorIsWithinHalfAStep) {
  const std::map<std::string_view, float> steps = {
      {"q4_0", 8}, {"q4_1", 15}, {"q5_0", 16}, {"q5_1", 31}, {"q8_0", 127}};
  const auto w = weights(13, 40 * 32, true);
  for (auto [name, codes] : steps) {
    const Format& f = format(name);
    const auto decoded = decode(f, encode(f, w, 40, 32).view(), 0, 40 * 32);
    const bool symmetric = name != "q4_1" && name != "q5_1";
    for (std::size_t block = 0; block < 40; ++block) {
      const auto [low, high] =
          std::minmax_element(w.begin() + block * 32, w.begin() + (block + 1) * 32);
      const float largest = std::max(-*low, *high),
                  step = (symmetric ? largest : *high - *low) / codes;
      // q4_0 and q5_0 have one step less on the side that the farthest weight is not on: up to a
      // whole step there.
      const float reach = name == "q4_0" || name == "q5_0" ? 1.0f : 0.5f;
      for (std::size_t i = block * 32; i < (block + 1) * 32; ++i) {
        EXPECT_LE(std::abs(decoded[i] - w[i]), reach * step * 1.0001f + largest * 0x1p-10f) << name;
      }
    }
  }
}

TEST(Blocks, ZeroDecodesToZero) {
  const std::vector<float> zeros(3 * 256);
  for (const Format* f : all_formats()) {
    if (!f->encode) continue;
    for (float x : decode(*f, encode(*f, zeros, 3, 256).view(), 0, 3 * 256))
      EXPECT_EQ(x, 0.0f) << f->name;
  }
}

TEST(Blocks, LargestWeightsStayFinite) {
  auto w = weights(14, 4 * 256, false);
  for (float& x : w) x = std::copysign(65504.0f, x);
  for (std::size_t i = 256; i < 512; ++i) w[i] = -65504;
  for (std::size_t i = 512; i < 768; ++i) w[i] = 65504;
  for (const Format* f : all_formats()) {
    if (!f->encode) continue;
    const auto decoded = decode(*f, encode(*f, w, 4, 256).view(), 0, 4 * 256);
    for (std::size_t i = 0; i < w.size(); ++i)
      EXPECT_NEAR(decoded[i], w[i], 65504 * 0.13f) << f->name << i;
  }
}

TEST(Blocks, WeightsThatNoScaleHoldsAreRefusedByName) {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity()};
  for (const Format* f : all_formats()) {
    if (!f->encode) continue;
    for (float x : bad) {
      auto w = weights(15, 2 * 256, false);
      w[256 + 9] = x;
      try {
        encode(*f, w, 2, 256);
        ADD_FAILURE() << f->name;
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("weight 9 of row 1"), std::string::npos) << e.what();
      }
    }
  }
  EXPECT_THROW(encode(format("q8_0"), std::vector<float>(32, 65505), 1, 32), Error);
}

TEST(Registry, GgufTypesHaveTheirPublishedSizes) {
  const std::map<std::string_view, std::array<int, 3>> expected = {
      {"q4_0", {2, 32, 18}},      {"q4_1", {3, 32, 20}},      {"q5_0", {6, 32, 22}},
      {"q5_1", {7, 32, 24}},      {"q8_0", {8, 32, 34}},      {"q2_k", {10, 256, 84}},
      {"q3_k", {11, 256, 110}},   {"q4_k", {12, 256, 144}},   {"q5_k", {13, 256, 176}},
      {"q6_k", {14, 256, 210}},   {"iq2_xxs", {16, 256, 66}}, {"iq2_xs", {17, 256, 74}},
      {"iq3_xxs", {18, 256, 98}}, {"iq1_s", {19, 256, 50}},   {"iq4_nl", {20, 32, 18}},
      {"iq3_s", {21, 256, 110}},  {"iq2_s", {22, 256, 82}},   {"iq4_xs", {23, 256, 136}},
      {"iq1_m", {29, 256, 56}},   {"tq1_0", {34, 256, 54}},   {"tq2_0", {35, 256, 66}},
      {"mxfp4", {39, 32, 17}},    {"nvfp4", {40, 64, 36}},    {"q1_0", {41, 128, 18}},
      {"q2_0", {42, 64, 18}},
  };
  for (auto [name, numbers] : expected) {
    const Format& f = format(name);
    EXPECT_EQ((std::array{f.ggml_type, f.block, f.block_bytes}), numbers);
    EXPECT_EQ(find_ggml_format(f.ggml_type), &f);
    EXPECT_EQ(total_bytes(f, 3, 512),
              3u * 512 / static_cast<unsigned>(f.block) * static_cast<unsigned>(f.block_bytes));
  }
  EXPECT_EQ(all_formats().size(), expected.size() + 2);
  EXPECT_EQ(find_format("q9_0"), nullptr);
  EXPECT_EQ(find_ggml_format(-1), nullptr);  // formats of other files have no type number
  EXPECT_EQ(find_ggml_format(0), nullptr);   // f32
}

TEST(Registry, ImpossibleSizesAreBadFiles) {
  const auto refused = [](std::string_view name, std::int64_t rows, std::int64_t cols) {
    try {
      total_bytes(format(name), rows, cols);
      return false;
    } catch (const Error& e) {
      return e.kind() == ErrorKind::bad_file;
    }
  };
  EXPECT_TRUE(refused("q4_k", 4, 96));
  EXPECT_TRUE(refused("q8_0", 4, 33));
  EXPECT_TRUE(refused("q8_0", -1, 32));
  EXPECT_TRUE(refused("q8_0", std::int64_t{1} << 40, std::int64_t{1} << 40));
  EXPECT_TRUE(refused("nf4", std::int64_t{1} << 31, std::int64_t{1} << 31));
  EXPECT_FALSE(refused("nf4", 4, 33));
  EXPECT_EQ(total_bytes(format("q8_0"), 0, 32), 0u);
}

TEST(Registry, RowsThatBlocksDoNotDivideFallBackAsLlamaCppDoes) {
  EXPECT_EQ(writable_for(format("q4_k"), 512), &format("q4_k"));
  EXPECT_EQ(writable_for(format("q4_k"), 576), &format("q5_0"));
  EXPECT_EQ(writable_for(format("q6_k"), 576), &format("q8_0"));
  EXPECT_EQ(writable_for(format("q4_1"), 576), &format("q4_1"));
  EXPECT_EQ(writable_for(format("q4_k"), 100), nullptr);  // f16
  EXPECT_EQ(writable_for(format("q8_0"), 100), nullptr);
  EXPECT_EQ(writable_for(format("nf4"), 100), &format("nf4"));
  EXPECT_EQ(writable_for(format("q5_k"), 576), &format("q5_1"));
  EXPECT_EQ(writable_for(format("q3_k"), 576), &format("q4_0"));
  EXPECT_EQ(writable_for(format("q2_k"), 576), &format("q4_0"));
  EXPECT_EQ(writable_for(format("iq4_xs"), 576), &format("iq4_nl"));
  EXPECT_EQ(writable_for(format("tq1_0"), 576), &format("q4_0"));
  EXPECT_EQ(writable_for(format("tq2_0"), 576), &format("q4_0"));
  EXPECT_EQ(writable_for(format("mxfp4"), 576), &format("mxfp4"));
  EXPECT_THROW(writable_for(format("iq2_s"), 256), Error);
}

}  // namespace
}  // namespace supersonic::testing
