#include "backend/cpu/kernels/gemm_source.h"

#include <string_view>
#include <utility>

#include "core/error.h"
#include "formats/nf4.h"

namespace supersonic::cpu::gemm_parts {

const Inner& inner() {
  static const Inner& chosen = []() -> const Inner& {
#if defined(__x86_64__)
    if (isa() == Isa::avx512) return inner_avx512();
    if (isa() == Isa::avx2) return inner_avx2();
#endif
    return inner_portable();
  }();
  return chosen;
}

Codec codec_of(const MatrixRef& w) {
  if (!w.format) {
    switch (w.dtype) {
      case DType::f32:
        return Codec::f32;
      case DType::bf16:
        return Codec::bf16;
      case DType::f16:
        return Codec::f16;
      case DType::i8:
        return Codec::i8_rows;
      default:
        fail(ErrorKind::failure,
             "gemm: a matrix of {} is not supported: use f32, bf16, f16, a format, or prepared "
             "int8 rows",
             name_of(w.dtype));
    }
  }
  constexpr std::pair<std::string_view, Codec> names[] = {
      {"q4_0", Codec::q4_0},       {"q4_1", Codec::q4_1},     {"q5_0", Codec::q5_0},
      {"q5_1", Codec::q5_1},       {"q8_0", Codec::q8_0},     {"q2_k", Codec::q2_k},
      {"q3_k", Codec::q3_k},       {"q4_k", Codec::q4_k},     {"q5_k", Codec::q5_k},
      {"q6_k", Codec::q6_k},       {"iq1_s", Codec::iq1_s},   {"iq1_m", Codec::iq1_m},
      {"iq2_xxs", Codec::iq2_xxs}, {"iq2_xs", Codec::iq2_xs}, {"iq2_s", Codec::iq2_s},
      {"iq3_xxs", Codec::iq3_xxs}, {"iq3_s", Codec::iq3_s},   {"iq4_nl", Codec::iq4_nl},
      {"iq4_xs", Codec::iq4_xs},   {"mxfp4", Codec::mxfp4},   {"nvfp4", Codec::nvfp4},
      {"tq1_0", Codec::tq1_0},     {"tq2_0", Codec::tq2_0},   {"q1_0", Codec::q1_0},
      {"q2_0", Codec::q2_0},       {"nf4", Codec::nf4},       {"nf4_plain", Codec::nf4}};
  for (const auto& [name, codec] : names)
    if (w.format->name == name) return codec;
  return Codec::other;
}

Source source_of(const MatrixRef& m) {
  Source s;
  s.codec = codec_of(m);
  s.data = m.format ? m.planes.data[0] : m.data;
  s.planes = &m.planes;
  s.rows = m.rows;
  s.cols = m.cols;
  s.ld = m.format ? m.cols : m.ld;
  if (m.format) {
    s.decode = m.format->decode;
    s.block = m.format->block;
    if (s.codec == Codec::nf4)
      s.scales = m.format->planes == 2 ? formats::nf4_plain_scales : formats::nf4_scales;
  }
  return s;
}

}  // namespace supersonic::cpu::gemm_parts

namespace supersonic::cpu {

FormatProducts products_of(const Format& format) {
  MatrixRef m;
  m.format = &format;
  const Codec codec = gemm_parts::codec_of(m);
  return {codec != Codec::other, affine_of(codec).supported};
}

}  // namespace supersonic::cpu
