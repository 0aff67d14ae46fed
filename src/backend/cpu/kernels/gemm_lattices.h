// The lattices of the i-quants as bytes, ready to be multiplied: a point's levels plus the zero
// that affine_of() gives the format, the first level in the lowest byte.
//
// 2- and 3-bit formats have magnitudes, 64 + g, which a sign turns into 64 - g. The 1-bit formats'
// levels are counted in eighths, so that their shift by an eighth is a whole number too: 9 + 8 t,
// one more or one less. 33 KiB in all, of which a format touches 1 to 16: they stay in L1.
#pragma once
#include <cstdint>

namespace supersonic::cpu::lattices {

template <class Word, int N>
struct Points {
  Word words[N];
};

[[gnu::visibility("hidden")]] extern const Points<std::uint64_t, 2048> kIq1;
[[gnu::visibility("hidden")]] extern const Points<std::uint64_t, 256> kIq2Xxs;
[[gnu::visibility("hidden")]] extern const Points<std::uint64_t, 512> kIq2Xs;
[[gnu::visibility("hidden")]] extern const Points<std::uint64_t, 1024> kIq2S;
[[gnu::visibility("hidden")]] extern const Points<std::uint32_t, 256> kIq3Xxs;
[[gnu::visibility("hidden")]] extern const Points<std::uint32_t, 512> kIq3S;

}  // namespace supersonic::cpu::lattices
