// Gives the blocks of a format that is only read (iq2_s, mxfp4, ...) scales of a size that trained
// weights have, so that any other bytes of theirs make a usable matrix.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "formats/format.h"

namespace supersonic::testing {

// scale: of one block, around 2^-7, above zero.
inline void set_scale(const Format& f, std::uint8_t* block, float scale) {
  const f16 half(scale);
  if (f.name == "mxfp4") {  // a power of two
    block[0] = static_cast<std::uint8_t>(118 + half.bits % 5);
  } else if (f.name == "nvfp4") {  // 8-bit floats up to 2^-4
    for (int k = 0; k < 4; ++k) block[k] = static_cast<std::uint8_t>(block[k] & 31);
  } else if (f.name == "iq1_m") {  // in the high nibbles of four words
    for (int k = 0; k < 4; ++k) {
      std::uint8_t& high = block[49 + 2 * k];
      high = static_cast<std::uint8_t>((high & 15) | (half.bits >> (4 * k) & 15) << 4);
    }
  } else {
    const int at = f.name == "tq1_0" ? 52 : f.name == "tq2_0" ? 64 : 0;
    std::memcpy(block + at, &half, sizeof half);
  }
}

}  // namespace supersonic::testing
