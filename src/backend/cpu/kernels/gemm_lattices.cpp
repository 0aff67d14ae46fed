// The lattices as bytes, made from the formats' own tables while this file is compiled.
#include "backend/cpu/kernels/gemm_lattices.h"

#include "formats/iq3_xxs.h"
#include "formats/iq_grids.h"

namespace supersonic::cpu::lattices {
namespace {

// byte(level) for every level of every point; a level takes `bits` in the format's table.
template <class Word, int bits, int N, class Byte>
constexpr Points<Word, N> expanded(const std::uint16_t (&points)[N], Byte byte) {
  Points<Word, N> out{};
  for (int i = 0; i < N; ++i)
    for (unsigned k = 0; k < sizeof(Word); ++k) {
      const int level = points[i] >> (bits * k) & (bits == 2 ? 3 : 7);
      out.words[i] |= static_cast<Word>(byte(level)) << (8 * k);
    }
  return out;
}

constexpr int eighths(int level) { return 9 + 8 * (level - 1); }
constexpr int magnitude(int level) { return 64 + 8 + 17 * level + (level >> 1); }
constexpr int wide_magnitude(int level) { return 64 + formats::IQ3_XXS::level(level); }
constexpr int odd_magnitude(int level) { return 64 + 2 * level + 1; }

}  // namespace

constinit const Points<std::uint64_t, 2048> kIq1 =
    expanded<std::uint64_t, 2>(formats::Iq1SGrid{}.points, eighths);
constinit const Points<std::uint64_t, 256> kIq2Xxs =
    expanded<std::uint64_t, 2>(formats::Iq2XxsGrid{}.points, magnitude);
constinit const Points<std::uint64_t, 512> kIq2Xs =
    expanded<std::uint64_t, 2>(formats::Iq2XsGrid{}.points, magnitude);
constinit const Points<std::uint64_t, 1024> kIq2S =
    expanded<std::uint64_t, 2>(formats::Iq2SGrid{}.points, magnitude);
constinit const Points<std::uint32_t, 256> kIq3Xxs =
    expanded<std::uint32_t, 4>(formats::Iq3XxsGrid{}.points, wide_magnitude);
constinit const Points<std::uint32_t, 512> kIq3S =
    expanded<std::uint32_t, 4>(formats::Iq3SGrid{}.points, odd_magnitude);

}  // namespace supersonic::cpu::lattices
