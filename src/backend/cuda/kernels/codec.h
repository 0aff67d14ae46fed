// How the elements of a matrix are stored, as device code switches on it: three float types and the
// weight formats.
#pragma once
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
      {"q4_0", Codec::q4_0}, {"q4_1", Codec::q4_1}, {"q5_0", Codec::q5_0},
      {"q5_1", Codec::q5_1}, {"q8_0", Codec::q8_0}, {"q2_k", Codec::q2_k},
      {"q3_k", Codec::q3_k}, {"q4_k", Codec::q4_k}, {"q5_k", Codec::q5_k},
      {"q6_k", Codec::q6_k}, {"nf4", Codec::nf4},   {"nf4_plain", Codec::nf4_plain}};
  for (const Name& n : names)
    if (format->name == n.name) return n.codec;
  return Codec::none;
}
constexpr bool quantized(Codec c) { return c > Codec::bf16 && c != Codec::none; }
constexpr DType float_type(Codec c) {
  return c == Codec::f32 ? DType::f32 : c == Codec::f16 ? DType::f16 : DType::bf16;
}

}  // namespace supersonic::cuda
