// NF4 against bitsandbytes' CPU quantizer: every plane byte for byte, and the decoded weights bit
// for bit.
#include "formats/nf4.h"

#include <cmath>

#include "golden.h"

namespace supersonic::testing {
namespace {

struct Case {
  int rows, cols;
  std::string name(const char* format) const {
    return std::to_string(rows) + "x" + std::to_string(cols) + "." + format;
  }
  std::vector<float> input() const {  // as record_formats.py: nf4_weights
    auto w = weights(static_cast<std::uint64_t>(rows * 10000 + cols),
                     static_cast<std::size_t>(rows * cols), true);
    if (rows == 7) {
      std::fill(w.begin() + 64, w.begin() + 128, 0.0f);
      std::fill(w.end() - 40, w.end(), 0.0f);
    }
    return w;
  }
};
constexpr Case kCases[] = {{1, 1}, {1, 5}, {1, 64}, {7, 96}, {5, 101}, {33, 576}};

TEST(Nf4, PlanesEqualBitsandbytesByteForByte) {
  auto golden = read_golden("nf4.bin");
  for (const char* name : {"nf4", "nf4_plain"}) {
    const Format& f = format(name);
    for (const Case& c : kCases) {
      const Encoded e = encode(f, c.input(), c.rows, c.cols);
      for (int p = 0; p < f.planes; ++p) {
        EXPECT_EQ(e.planes[p], golden[c.name(name) + "." + std::to_string(p)])
            << c.name(name) << " plane " << p;
      }
    }
  }
}

// 33600 scales: the mean passes through three levels of partial sums of 16.
TEST(Nf4, ScalesOfALargeTensorEqualBitsandbytes) {
  auto golden = read_golden("nf4.bin");
  const Case c{2100, 1024};
  const Encoded e = encode(format("nf4"), c.input(), c.rows, c.cols);
  for (int p = 1; p < 4; ++p)
    EXPECT_EQ(e.planes[p], golden[c.name("nf4") + "." + std::to_string(p)]) << p;
}

// On the boundaries the last bit of the quotient decides.
TEST(Nf4, AShortBlockDividesAsBitsandbytesDoes) {
  auto golden = read_golden("nf4.bin");
  const auto w = as<float>(golden["tail.input"]);
  const auto count = static_cast<std::int64_t>(w.size());
  ASSERT_EQ(count, 46);
  EXPECT_EQ(encode(format("nf4_plain"), w, 1, count).planes[0], golden["tail.0"]);
}

TEST(Nf4, DecodeEqualsBitsandbytesBitForBit) {
  auto golden = read_golden("nf4.bin");
  for (const char* name : {"nf4", "nf4_plain"}) {
    for (const Case& c : kCases) {
      Encoded e;
      for (int p = 0; p < format(name).planes; ++p)
        e.planes.push_back(golden[c.name(name) + "." + std::to_string(p)]);
      const auto expected = as<float>(golden[c.name(name) + ".weights"]);
      ASSERT_EQ(expected.size(), static_cast<std::size_t>(c.rows * c.cols));
      EXPECT_TRUE(same_bits(decode(format(name), e.view(), 0, c.rows * c.cols), expected))
          << c.name(name);
    }
  }
}

TEST(Nf4, DecodeOfAPartEqualsThatPartOfTheWhole) {
  for (const char* name : {"nf4", "nf4_plain"}) {
    const Case c{33, 576};
    const Encoded e = encode(format(name), c.input(), c.rows, c.cols);
    const auto whole = decode(format(name), e.view(), 0, c.rows * c.cols);
    for (int first : {0, 64, 64 * 63, 64 * 64, 64 * 255, 64 * 257}) {
      for (int count : {0, 1, 63, 64, 65, 1000}) {
        const auto from = whole.begin() + first;
        EXPECT_TRUE(same_bits(decode(format(name), e.view(), first, count), {from, from + count}))
            << name << first;
      }
    }
  }
}

TEST(Nf4, EveryCodeDecodesToItsTableEntry) {
  std::uint8_t codes[8];
  for (int i = 0; i < 8; ++i) codes[i] = static_cast<std::uint8_t>(2 * i << 4 | (2 * i + 1));
  float out[16];
  formats::Nf4::decode(codes, 16, 2.0f, out);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(out[i], 2.0f * formats::Nf4::table[i]);
}

// The table is quantiles of the normal distribution (QLoRA, appendix E): 8 positive and 7 negative,
// evenly spaced in probability up to 1 - (1/32 + 1/30) / 2, divided by the largest.
TEST(Nf4, TableIsItsDefinition) {
  const auto quantile = [](double p) {
    double low = -10, high = 10;
    for (int i = 0; i < 200; ++i) {
      const double mid = (low + high) / 2;
      (0.5 * std::erfc(-mid / std::sqrt(2.0)) < p ? low : high) = mid;
    }
    return low;
  };
  const double top = 0.9677083, largest = quantile(top);
  for (int i = 1; i <= 8; ++i) {
    EXPECT_NEAR(formats::Nf4::table[7 + i], quantile(0.5 + (top - 0.5) * i / 8) / largest, 1e-6);
  }
  for (int i = 1; i <= 7; ++i) {
    EXPECT_NEAR(formats::Nf4::table[7 - i], -quantile(0.5 + (top - 0.5) * i / 7) / largest, 1e-6);
  }
}

TEST(Nf4, NearestEntryIsChosenAndTiesGoDown) {
  const auto& table = formats::Nf4::table;
  const auto code = [](float x) {
    std::uint8_t c;
    formats::Nf4::nearest(&x, 1, &c);
    return c;
  };
  for (int i = 0; i < 16; ++i) EXPECT_EQ(code(table[i]), i);
  for (int i = 0; i < 15; ++i) {
    const float middle = (table[i] + table[i + 1]) / 2;
    EXPECT_EQ(code(middle), i);
    EXPECT_EQ(code(std::nextafter(middle, 2.0f)), i + 1);
  }
}

TEST(Nf4, PlainEncodingIsIdempotent) {
  const Case c{5, 101};
  const Format& f = format("nf4_plain");
  const Encoded once = encode(f, c.input(), c.rows, c.cols);
  const Encoded twice = encode(f, decode(f, once.view(), 0, c.rows * c.cols), c.rows, c.cols);
  EXPECT_EQ(once.planes, twice.planes);
}

// 4 + 8/64 + 32/(64 256) bits a weight, and one offset.
TEST(Nf4, StorageIsWhatThePaperCounts) {
  EXPECT_EQ(total_bytes(format("nf4"), 1024, 1024), (1u << 19) + (1u << 14) + 4 * (1u << 6) + 4);
  EXPECT_EQ(total_bytes(format("nf4"), 1, 1), 1u + 1 + 4 + 4);
  EXPECT_EQ(total_bytes(format("nf4"), 0, 7), 4u);
  EXPECT_EQ(total_bytes(format("nf4_plain"), 3, 43), 65u + 3 * 4);
}

TEST(Nf4, AnEmptyMatrixEncodes) {
  const Encoded e = encode(format("nf4"), {}, 0, 64);
  EXPECT_EQ(as<float>(e.planes[3]), std::vector<float>{0.0f});
}

}  // namespace
}  // namespace supersonic::testing
