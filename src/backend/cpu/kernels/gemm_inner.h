// The seam between the matrix product's driver (gemm.cpp) and its inner loops, one table of
// functions per instruction set.
//
// The driver cuts Y into panels of up to mr rows and nr columns. Operands are packed: an X panel is
// [step][rows] and a W panel [step][width] of 32-bit words, a word being one fp32, two bf16 (k,
// k+1) or four int8 (k..k+3). An inner loop adds the product of two panels to a (rows, nr) fp32
// tile in L1 cache; terms and K blocks follow one another on the same tile.
#pragma once
#include <cstddef>
#include <cstdint>

namespace supersonic {
struct Planes;
}

namespace supersonic::cpu {

enum class Codec : std::uint8_t {
  f32,
  bf16,
  f16,
  i8_rows,
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
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq4_nl,
  iq4_xs,
  mxfp4,
  nvfp4,
  tq1_0,
  tq2_0,
  q1_0,
  q2_0,
  nf4,
  other
};

// What an inner loop needs to know of a matrix: `first` flat elements from the start are addressed
// by row * ld + col.
struct Source {
  const void* data = nullptr;  // dense elements, or plane 0
  const Planes* planes = nullptr;
  void (*decode)(const Planes& planes, std::int64_t first, std::int64_t count,
                 float* out) = nullptr;
  // nf4: the scales of blocks first .. first + count
  void (*scales)(const Planes& planes, std::int64_t first, std::int64_t count, float* out) = nullptr;
  std::int64_t rows = 0, cols = 0, ld = 0;
  int block = 1;
  Codec codec = Codec::f32;
};

// How a format is seen by the int8 loops: u8 codes with w = scale * (code - zero) + min, per 32 or
// (halves) per 16. top: the largest code. Formats whose codes stand for levels have the level plus
// zero as code; zero is as small as the levels allow, since up to 127 a sum of two products with
// int8 activations fits into 16 bits.
struct Affine {
  bool supported = false;
  bool halves = false;
  bool has_min = false;
  int zero = 0;
  int top = 255;
};

// Static: this header is compiled for several instruction sets.
[[maybe_unused]] static constexpr Affine affine_of(Codec codec) {
  switch (codec) {
    case Codec::q4_0:
      return {.supported = true, .zero = 8, .top = 15};
    case Codec::q5_0:
      return {.supported = true, .zero = 16, .top = 31};
    case Codec::q8_0:
    case Codec::iq4_nl:
    case Codec::iq4_xs:
      return {.supported = true, .zero = 128};
    case Codec::mxfp4:
      return {.supported = true, .zero = 12, .top = 24};
    case Codec::nvfp4:
      return {.supported = true, .halves = true, .zero = 12, .top = 24};
    case Codec::q3_k:
      return {.supported = true, .halves = true, .zero = 4, .top = 7};
    case Codec::q6_k:
      return {.supported = true, .halves = true, .zero = 32, .top = 63};
    case Codec::q4_1:
    case Codec::q4_k:
      return {.supported = true, .has_min = true, .top = 15};
    case Codec::q5_1:
    case Codec::q5_k:
      return {.supported = true, .has_min = true, .top = 31};
    case Codec::q2_k:
      return {.supported = true, .halves = true, .has_min = true, .top = 3};
    case Codec::iq1_s:
      return {.supported = true, .zero = 9, .top = 18};
    case Codec::iq1_m:
      return {.supported = true, .halves = true, .zero = 9, .top = 18};
    case Codec::iq2_xxs:
    case Codec::iq3_xxs:
    case Codec::iq3_s:
      return {.supported = true, .zero = 64, .top = 127};
    case Codec::iq2_xs:
    case Codec::iq2_s:
      return {.supported = true, .halves = true, .zero = 64, .top = 127};
    case Codec::tq1_0:
    case Codec::tq2_0:
    case Codec::q1_0:
    case Codec::q2_0:
      return {.supported = true, .zero = 1, .top = 3};
    default:
      return {};
  }
}

constexpr int kMaxRowsPerPanel = 16;
constexpr int kGroup = 32;             // int8: activations per scale
constexpr int kMaxFormatBlock = 4096;  // weights
constexpr int kVectorRows = 8;         // up to here rows go through gemv

// One group of a prepared X panel of `rows` rows: codes[8][rows] words, then these arrays of `rows`
// elements: scale f32, sum i32, half sums i32 (2 arrays), scaled sum f32.
constexpr std::size_t int8_group_bytes(std::size_t rows) { return rows * (kGroup + 5 * 4); }

// Prepared rows for gemv, for m <= kVectorRows: per row codes[padded K], then per group {scale,
// scale * sum} and {half sum, half sum} as floats scaled.
struct Int8Row {
  const std::int8_t* codes;
  const float* scale_sum;  // [groups][2]
  const float* half_sums;  // [groups][2], times scale
};

struct Inner {
  int mr = 0, nr = 0;
  bool native_bf16 = false;

  // Elements first..first+count of a dense or quantized source. Quantized: any range (whole blocks
  // are fast).
  void (*to_f32)(const Source& s, std::int64_t first, std::int64_t count, float* out);
  void (*to_bf16)(const Source& s, std::int64_t first, std::int64_t count, std::uint16_t* out);

  // out[step][rows] = in[row][step], 32-bit words; in: `rows` rows ld words apart.
  void (*transpose)(const std::uint32_t* in, std::int64_t ld, int rows, std::int64_t steps,
                    std::uint32_t* out, int out_stride);

  // bf16 rows -> words of two rows: out[i][c] = {in[2 i][c], in[2 i + 1][c]}; zeros behind the last row and from `count`
  // to `width`. in: any alignment, ld elements from row to row. out: rows of `width` words.
  void (*interleave)(const std::uint8_t* in, std::int64_t ld, std::int64_t rows, int count, std::uint32_t* out, int width);

  // tile (rows, nr) [+]= x panel * w panel. width is nr or nr / 2.
  void (*product_f32)(int rows, int width, std::int64_t steps, const float* x, const float* w,
                      float* tile, bool add);
  void (*product_bf16)(int rows, int width, std::int64_t steps, const std::uint32_t* x,
                       const std::uint32_t* w, float* tile, bool add);
  // groups of 32; w panel group: codes[8][width] words, scale[1 or 2][width], min[1 or 2][width] if
  // has_min.
  void (*product_int8)(Affine a, int rows, int width, std::int64_t groups, const std::uint8_t* x,
                       const std::uint8_t* w, float* tile, bool add);
  // Packs rows n0..n0+count (<= width) of W, groups g0..g0+groups, as above; missing rows become
  // zeros.
  void (*pack_int8)(const Source& s, Affine a, std::int64_t n0, int count, int width,
                    std::int64_t g0, std::int64_t groups, std::uint8_t* out);

  // Quantizes rows of one panel into groups (see int8_group_bytes).
  void (*quantize_panel)(const Source& x, std::int64_t row0, int rows, std::uint8_t* out);
  void (*quantize_row)(const Source& x, std::int64_t row, std::int8_t* codes, float* scale_sum,
                       float* half_sums);

  // y rows [+]= alpha * tile.
  void (*store)(const float* tile, std::int64_t tile_ld, int rows, int cols, float alpha,
                bool accumulate, Codec type, void* y, std::int64_t ldy);

  // out[n][kVectorRows] += x (m rows) * W rows n0..n0+count. gemv_int8 returns false if it has no
  // loop for the codec.
  void (*gemv_f32)(const Source& w, std::int64_t n0, int count, const float* x, std::int64_t ldx,
                   int m, float* out);
  bool (*gemv_int8)(const Source& w, std::int64_t n0, int count, const Int8Row* x, int m,
                    float* out);
};

const Inner& inner_portable();
const Inner& inner_avx2();
const Inner& inner_avx512();

}  // namespace supersonic::cpu
