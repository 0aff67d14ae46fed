// How the elements of a matrix are stored, as device code switches on it: three float types and the
// weight formats.
#pragma once
#include <type_traits>

#include "core/dtype.h"
#include "formats/format.h"

namespace supersonic::cuda {

enum class Codec : int {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq2_xxs,
  iq2_xs,
  iq3_xxs,
  iq1_s,
  iq4_nl,
  iq3_s,
  iq2_s,
  iq4_xs,
  iq1_m,
  tq1_0,
  tq2_0,
  mxfp4,
  nvfp4,
  q1_0,
  q2_0,
  nf4,
  nf4_plain,
  none
};

// Codec::none: no kernel of this folder reads it.
inline Codec codec_of(DType dtype, const Format* format) {
  if (!format)
    return dtype == DType::f32    ? Codec::f32
           : dtype == DType::f16  ? Codec::f16
           : dtype == DType::bf16 ? Codec::bf16
                                  : Codec::none;
  struct Name {
    std::string_view name;
    Codec codec;
  };
  constexpr Name names[] = {
      {"q4_0", Codec::q4_0},       {"q4_1", Codec::q4_1},       {"q5_0", Codec::q5_0},
      {"q5_1", Codec::q5_1},       {"q8_0", Codec::q8_0},       {"q2_k", Codec::q2_k},
      {"q3_k", Codec::q3_k},       {"q4_k", Codec::q4_k},       {"q5_k", Codec::q5_k},
      {"q6_k", Codec::q6_k},       {"iq2_xxs", Codec::iq2_xxs}, {"iq2_xs", Codec::iq2_xs},
      {"iq3_xxs", Codec::iq3_xxs}, {"iq1_s", Codec::iq1_s},     {"iq4_nl", Codec::iq4_nl},
      {"iq3_s", Codec::iq3_s},     {"iq2_s", Codec::iq2_s},     {"iq4_xs", Codec::iq4_xs},
      {"iq1_m", Codec::iq1_m},     {"tq1_0", Codec::tq1_0},     {"tq2_0", Codec::tq2_0},
      {"mxfp4", Codec::mxfp4},     {"nvfp4", Codec::nvfp4},     {"q1_0", Codec::q1_0},
      {"q2_0", Codec::q2_0},       {"nf4", Codec::nf4},         {"nf4_plain", Codec::nf4_plain}};
  for (const Name& n : names)
    if (format->name == n.name) return n.codec;
  return Codec::none;
}
// Calls f(std::integral_constant<Codec, c>) for a codec of blocks; false for any other.
template <int at = static_cast<int>(Codec::q4_0), class F>
bool with_block_codec(Codec c, const F& f) {
  if constexpr (at < static_cast<int>(Codec::nf4)) {
    if (c != Codec{at}) return with_block_codec<at + 1>(c, f);
    f(std::integral_constant<Codec, Codec{at}>{});
    return true;
  } else {
    return false;
  }
}
constexpr bool quantized(Codec c) { return c > Codec::bf16 && c != Codec::none; }
constexpr DType float_type(Codec c) {
  return c == Codec::f32 ? DType::f32 : c == Codec::f16 ? DType::f16 : DType::bf16;
}

}  // namespace supersonic::cuda
