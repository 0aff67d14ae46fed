// The inner loops of the matrix product in plain C++ with GNU vectors (GCC and clang, any
// processor).
//
// Included once by each gemm_<isa>.cpp, which defines GEMM_LANES (fp32 per vector), GEMM_ROWS and
// GEMM_VECTORS (the tile is GEMM_ROWS x GEMM_VECTORS * GEMM_LANES) and replaces what it can do
// better. Everything lives in an unnamed namespace: the same source is compiled for several
// instruction sets, and nothing of it may be shared between them.
#pragma once
#include <cstring>

#include "backend/cpu/kernels/gemm_few_bits.h"
#include "backend/cpu/kernels/gemm_inner.h"

namespace supersonic::cpu {
namespace {

constexpr int kLanes = GEMM_LANES, kRows = GEMM_ROWS, kVectors = GEMM_VECTORS;
constexpr int kWidth = kLanes * kVectors;
constexpr std::int64_t kChunk = 256;  // elements decoded at a time on the stack
static_assert(kRows <= kMaxRowsPerPanel && kVectors % 2 == 0);

typedef float Vec __attribute__((vector_size(kLanes * 4)));

inline Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void save(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

// ---- quantized groups
// -------------------------------------------------------------------------------------------------

// Group `index` (32 weights) of the flat array of blocks: weight = scale * (code - zero) + min,
// zero as affine_of() says.
inline void unpack(Codec codec, const std::uint8_t* data, std::int64_t index, Group& g) {
  both(g.min, 0);
  const std::int64_t super = index / 8;
  const int sub = static_cast<int>(index % 8);
  switch (codec) {
    case Codec::q4_0: {
      const std::uint8_t* b = data + index * 18;
      both(g.scale, from_f16(load16(b)));
      return nibbles(b + 2, g.codes);
    }
    case Codec::q4_1: {
      const std::uint8_t* b = data + index * 20;
      both(g.scale, from_f16(load16(b)));
      both(g.min, from_f16(load16(b + 2)));
      return nibbles(b + 4, g.codes);
    }
    case Codec::q5_0: {
      const std::uint8_t* b = data + index * 22;
      both(g.scale, from_f16(load16(b)));
      nibbles(b + 6, g.codes);
      return fifth_bits(load32(b + 2), g.codes);
    }
    case Codec::q5_1: {
      const std::uint8_t* b = data + index * 24;
      both(g.scale, from_f16(load16(b)));
      both(g.min, from_f16(load16(b + 2)));
      nibbles(b + 8, g.codes);
      return fifth_bits(load32(b + 4), g.codes);
    }
    case Codec::q8_0: {
      const std::uint8_t* b = data + index * 34;
      both(g.scale, from_f16(load16(b)));
      for (int j = 0; j < 32; ++j) g.codes[j] = b[2 + j] ^ 0x80;
      return;
    }
    case Codec::q4_k:
    case Codec::q5_k: {
      const bool five = codec == Codec::q5_k;
      const std::uint8_t* b = data + super * (five ? 176 : 144);
      int scale, min;
      scale_min_6bit(b + 4, sub, scale, min);
      both(g.scale, from_f16(load16(b)) * static_cast<float>(scale));
      both(g.min, -from_f16(load16(b + 2)) * static_cast<float>(min));
      const std::uint8_t* q = b + (five ? 48 : 16) + sub / 2 * 32;
      for (int j = 0; j < 32; ++j) g.codes[j] = q[j] >> (sub % 2 * 4) & 15;
      if (five)
        for (int j = 0; j < 32; ++j)
          g.codes[j] = static_cast<std::uint8_t>(g.codes[j] | (b[16 + j] >> sub & 1) << 4);
      return;
    }
    case Codec::q3_k: {
      const std::uint8_t* b = data + super * 110;
      const int half = sub / 4, part = sub % 4;
      const float d = from_f16(load16(b + 108));
      for (int i = 0; i < 2; ++i)
        g.scale[i] = d * static_cast<float>(q3_k_scale(b + 96, 2 * sub + i));
      for (int j = 0; j < 32; ++j)
        g.codes[j] = static_cast<std::uint8_t>((b[32 + half * 32 + j] >> (part * 2) & 3) |
                                               (b[j] >> sub & 1) << 2);
      return;
    }
    case Codec::q6_k: {
      const std::uint8_t* b = data + super * 210;
      const int half = sub / 4, part = sub % 4;
      const float d = from_f16(load16(b + 208));
      const std::uint8_t *low = b + half * 64 + part % 2 * 32, *high = b + 128 + half * 32;
      for (int i = 0; i < 2; ++i)
        g.scale[i] = d * static_cast<float>(static_cast<std::int8_t>(b[192 + sub * 2 + i]));
      for (int j = 0; j < 32; ++j)
        g.codes[j] = static_cast<std::uint8_t>((low[j] >> (part / 2 * 4) & 15) |
                                               (high[j] >> (part * 2) & 3) << 4);
      return;
    }
    case Codec::iq4_nl: {
      const std::uint8_t* b = data + index * 18;
      both(g.scale, from_f16(load16(b)));
      nibbles(b + 2, g.codes);
      return look_up(kIq4Codes, g.codes);
    }
    case Codec::iq4_xs: {
      const std::uint8_t* b = data + super * 136;
      both(g.scale, from_f16(load16(b)) * static_cast<float>(iq4_xs_scale(b, sub)));
      nibbles(b + 8 + sub * 16, g.codes);
      return look_up(kIq4Codes, g.codes);
    }
    case Codec::mxfp4: {
      const std::uint8_t* b = data + index * 17;
      both(g.scale, e8m0_half(b[0]));
      nibbles(b + 1, g.codes);
      return look_up(kE2m1Codes, g.codes);
    }
    default:
      return unpack_few_bits(codec, data, index, g);
  }
}
constexpr int zero_of(Codec codec) { return affine_of(codec).zero; }

// ---- decoding
// ---------------------------------------------------------------------------------------------------------

inline void decode_group(Codec codec, const std::uint8_t* data, std::int64_t index, float* out) {
  Group g;
  unpack(codec, data, index, g);
  const Affine a = affine_of(codec);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 16; ++j)
      out[i * 16 + j] = g.scale[i] * static_cast<float>(g.codes[i * 16 + j] - a.zero);
  if (!a.has_min) return;  // not "+ 0", which would lose the sign of a zero
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 16; ++j) out[i * 16 + j] += g.min[i];
}

// Cuts [first, first + count) at multiples of `block`: whole(first, count, out) for the middle, a
// decoded block for edges.
template <int kMaxBlock, class Whole>
inline void by_blocks(std::int64_t total, std::int64_t block, std::int64_t first,
                      std::int64_t count, float* out, Whole whole) {
  while (count > 0) {
    const std::int64_t skip = first % block;
    std::int64_t n;
    if (skip == 0 && count >= block) {
      n = count - count % block;
      whole(first, n, out);
    } else {
      float edge[kMaxBlock];
      const std::int64_t start = first - skip;
      whole(start, total - start < block ? total - start : block, edge);
      n = block - skip < count ? block - skip : count;
      std::memcpy(out, edge + skip, static_cast<std::size_t>(n) * 4);
    }
    first += n, count -= n, out += n;
  }
}

inline void generic_to_f32(const Source& s, std::int64_t first, std::int64_t count, float* out) {
  const auto* bytes = static_cast<const std::uint8_t*>(s.data);
  switch (s.codec) {
    case Codec::f32:
      std::memcpy(out, bytes + first * 4, static_cast<std::size_t>(count) * 4);
      return;
    case Codec::bf16:
      for (std::int64_t i = 0; i < count; ++i) out[i] = from_bf16(load16(bytes + (first + i) * 2));
      return;
    case Codec::f16:
      for (std::int64_t i = 0; i < count; ++i) out[i] = from_f16(load16(bytes + (first + i) * 2));
      return;
    case Codec::nf4:
    case Codec::other:
      return by_blocks<kMaxFormatBlock>(s.rows * s.cols, s.block, first, count, out,
          [&](std::int64_t f, std::int64_t n, float* o) { s.decode(*s.planes, f, n, o); });
    default:
      return by_blocks<32>(s.rows * s.cols, 32, first, count, out, [&](std::int64_t f, std::int64_t n, float* o) {
        for (std::int64_t g = 0; g < n / 32; ++g)
          decode_group(s.codec, bytes, f / 32 + g, o + g * 32);
      });
  }
}

template <void (*ToF32)(const Source&, std::int64_t, std::int64_t, float*)>
void generic_to_bf16(const Source& s, std::int64_t first, std::int64_t count, std::uint16_t* out) {
  if (s.codec == Codec::bf16) {
    std::memcpy(out, static_cast<const std::uint8_t*>(s.data) + first * 2,
                static_cast<std::size_t>(count) * 2);
    return;
  }
  float chunk[kChunk];
  for (std::int64_t i = 0; i < count; i += kChunk) {
    const std::int64_t n = count - i < kChunk ? count - i : kChunk;
    ToF32(s, first + i, n, chunk);
    for (std::int64_t j = 0; j < n; ++j) out[i + j] = to_bf16_bits(chunk[j]);
  }
}

inline void generic_transpose(const std::uint32_t* in, std::int64_t ld, int rows,
                              std::int64_t steps, std::uint32_t* out, int out_stride) {
  for (std::int64_t k = 0; k < steps; ++k)
    for (int r = 0; r < rows; ++r) out[k * out_stride + r] = in[r * ld + k];
}

[[maybe_unused]] void generic_interleave(const std::uint8_t* in, std::int64_t ld, std::int64_t rows, int count,
                                         std::uint32_t* out, int width) {
  for (std::int64_t k = 0; k < rows; k += 2, out += width)
    for (int c = 0; c < width; ++c) {
      const std::uint8_t* at = in + (k * ld + c) * 2;
      const std::uint32_t a = c < count ? load16(at) : 0u, b = c < count && k + 1 < rows ? load16(at + ld * 2) : 0u;
      out[c] = a | b << 16;
    }
}

// ---- products of packed panels
// ----------------------------------------------------------------------------------------

// A register tile of R rows and V vectors: per step V loads and R broadcasts feed R * V
// multiply-adds.
template <int R, int V>
void tile_f32(std::int64_t steps, const float* x, const float* w, float* tile, bool add) {
  Vec acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = add ? load(tile + r * kWidth + v * kLanes) : Vec{};
  for (std::int64_t k = 0; k < steps; ++k, x += R, w += V * kLanes) {
    Vec b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) b[v] = load(w + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] += x[r] * b[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) save(tile + r * kWidth + v * kLanes, acc[r][v]);
}

// Calls F<rows, vectors>::run with compile-time sizes.
template <template <int, int> class F, int R = kRows, class... A>
inline void with_rows(int rows, bool narrow, A... a) {
  if (rows == R) return narrow ? F<R, kVectors / 2>::run(a...) : F<R, kVectors>::run(a...);
  if constexpr (R > 1) with_rows<F, R - 1>(rows, narrow, a...);
}
template <int R, int V>
struct TileF32 {
  static void run(std::int64_t steps, const float* x, const float* w, float* tile, bool add) {
    tile_f32<R, V>(steps, x, w, tile, add);
  }
};
void generic_product_f32(int rows, int width, std::int64_t steps, const float* x, const float* w,
                         float* tile, bool add) {
  with_rows<TileF32>(rows, width < kWidth, steps, x, w, tile, add);
}

// One group's columns of an int8 product: sums[c] = sum over the group's words q0..q1 of x * w.
inline void int8_sums(int width, int q0, int q1, int rows, const std::int8_t* x,
                      const std::uint8_t* w, int* sums) {
  for (int c = 0; c < width; ++c) sums[c] = 0;
  for (int q = q0; q < q1; ++q) {
    const std::int8_t* xs = x + q * rows * 4;
    const std::uint8_t* ws = w + q * width * 4;
    for (int c = 0; c < width; ++c)
      sums[c] +=
          xs[0] * ws[c * 4] + xs[1] * ws[c * 4 + 1] + xs[2] * ws[c * 4 + 2] + xs[3] * ws[c * 4 + 3];
  }
}

[[maybe_unused]] void generic_product_int8(Affine a, int rows, int width, std::int64_t groups,
                                           const std::uint8_t* x, const std::uint8_t* w,
                                           float* tile, bool add) {
  const int halves = a.halves ? 2 : 1;
  if (!add)
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < width; ++c) tile[r * kWidth + c] = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto* codes = reinterpret_cast<const std::int8_t*>(x);
    const auto* x_scale = reinterpret_cast<const float*>(x + rows * 32);
    const auto* x_sum = reinterpret_cast<const std::int32_t*>(x_scale + rows);
    const auto* x_half = x_sum + rows;
    const auto* scale = reinterpret_cast<const float*>(w + width * 32);
    const float* min = scale + halves * width;
    for (int r = 0; r < rows; ++r) {
      float* y = tile + r * kWidth;
      for (int h = 0; h < halves; ++h) {
        int sums[kWidth];
        int8_sums(width, h * 4, h * 4 + 8 / halves, rows, codes + r * 4, w, sums);
        const int total = a.halves ? x_half[h * rows + r] : x_sum[r];
        for (int c = 0; c < width; ++c) {
          float value = scale[h * width + c] * static_cast<float>(sums[c] - a.zero * total);
          if (a.has_min) value += min[h * width + c] * static_cast<float>(total);
          y[c] += x_scale[r] * value;
        }
      }
    }
    x += int8_group_bytes(static_cast<std::size_t>(rows));
    w += width * (32 + 4 * halves * (a.has_min ? 2 : 1));
  }
}

[[maybe_unused]] void generic_pack_int8(const Source& s, Affine a, std::int64_t n0, int count,
                                        int width, std::int64_t g0, std::int64_t groups,
                                        std::uint8_t* out) {
  const int halves = a.halves ? 2 : 1;
  for (std::int64_t g = 0; g < groups;
       ++g, out += width * (32 + 4 * halves * (a.has_min ? 2 : 1))) {
    auto* scale = reinterpret_cast<float*>(out + width * 32);
    float* min = scale + halves * width;
    for (int c = 0; c < width; ++c) {
      Group group = {};
      if (c < count)
        unpack(s.codec, static_cast<const std::uint8_t*>(s.data), (n0 + c) * (s.cols / 32) + g0 + g,
               group);
      for (int q = 0; q < 8; ++q) std::memcpy(out + (q * width + c) * 4, group.codes + q * 4, 4);
      for (int h = 0; h < halves; ++h) {
        scale[h * width + c] = group.scale[h];
        if (a.has_min) min[h * width + c] = group.min[h];
      }
    }
  }
}

// ---- activations as int8
// ----------------------------------------------------------------------------------------------

// 32 floats -> codes in -127..127, scale, sums of the two halves. A NaN or infinity makes the scale
// NaN or infinite, so that it reaches the result.
inline void quantize_group(const float* x, std::int8_t* codes, float& scale,
                           std::int32_t* half_sums) {
  std::uint32_t top = 0;
  for (int j = 0; j < 32; ++j) {
    const std::uint32_t magnitude = bits_of(x[j]) & 0x7fffffffu;
    top = magnitude > top ? magnitude : top;
  }
  const float largest = float_of(top);
  const float inverse =
      top < 0x01000000u || top >= 0x7f800000u ? 0 : 127.0f / largest;  // below 2^-125: zero
  scale = top < 0x01000000u ? 0 : top == 0x7f800000u ? float_of(0x7fc00000u) : largest / 127.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the nearest integer
  std::int32_t c[32];
  for (int j = 0; j < 32; ++j)
    c[j] = static_cast<std::int32_t>(bits_of(x[j] * inverse + kRound) - 0x4b400000u);
  for (int h = 0; h < 2; ++h) {
    half_sums[h] = 0;
    for (int j = 0; j < 16; ++j) {
      codes[h * 16 + j] = static_cast<std::int8_t>(c[h * 16 + j]);
      half_sums[h] += codes[h * 16 + j];
    }
  }
}

// Calls f(group, codes, scale, half sums) for each group of a row; the last one is filled up with
// zeros.
template <void (*ToF32)(const Source&, std::int64_t, std::int64_t, float*), class F>
inline void quantize_groups(const Source& x, std::int64_t row, F f) {
  for (std::int64_t k = 0, g = 0; k < x.cols; k += 32, ++g) {
    float values[32] = {};
    ToF32(x, row * x.ld + k, x.cols - k < 32 ? x.cols - k : 32, values);
    std::int8_t codes[32];
    std::int32_t half_sums[2];
    float scale;
    quantize_group(values, codes, scale, half_sums);
    f(g, codes, scale, half_sums);
  }
}

template <void (*ToF32)(const Source&, std::int64_t, std::int64_t, float*)>
void generic_quantize_panel(const Source& x, std::int64_t row0, int rows, std::uint8_t* out) {
  for (int r = 0; r < rows; ++r)
    quantize_groups<ToF32>(
        x, row0 + r,
        [&](std::int64_t g, const std::int8_t* codes, float scale, const std::int32_t* half) {
          std::uint8_t* group =
              out + g * static_cast<std::int64_t>(int8_group_bytes(static_cast<std::size_t>(rows)));
          for (int q = 0; q < 8; ++q) std::memcpy(group + (q * rows + r) * 4, codes + q * 4, 4);
          const std::int32_t sum = half[0] + half[1];
          const float scaled = scale * static_cast<float>(sum);
          std::uint8_t* tail = group + rows * 32 + r * 4;
          std::memcpy(tail, &scale, 4);
          std::memcpy(tail + rows * 4, &sum, 4);
          std::memcpy(tail + rows * 8, &half[0], 4);
          std::memcpy(tail + rows * 12, &half[1], 4);
          std::memcpy(tail + rows * 16, &scaled, 4);
        });
}

template <void (*ToF32)(const Source&, std::int64_t, std::int64_t, float*)>
void generic_quantize_row(const Source& x, std::int64_t row, std::int8_t* codes, float* scale_sum,
                          float* half_sums) {
  quantize_groups<ToF32>(
      x, row, [&](std::int64_t g, const std::int8_t* c, float scale, const std::int32_t* half) {
        std::memcpy(codes + g * 32, c, 32);
        scale_sum[g * 2] = scale;
        scale_sum[g * 2 + 1] = scale * static_cast<float>(half[0] + half[1]);
        half_sums[g * 2] = scale * static_cast<float>(half[0]);
        half_sums[g * 2 + 1] = scale * static_cast<float>(half[1]);
      });
}

// ---- few rows
// ---------------------------------------------------------------------------------------------------------

template <void (*ToF32)(const Source&, std::int64_t, std::int64_t, float*)>
void generic_gemv_f32(const Source& w, std::int64_t n0, int count, const float* x, std::int64_t ldx,
                      int m, float* out) {
  constexpr int kWide = 32;  // partial sums side by side, so that the loop vectorizes
  for (int i = 0; i < count; ++i) {
    float sums[kVectorRows][kWide] = {};
    for (std::int64_t k = 0; k < w.cols; k += kChunk) {
      const std::int64_t n = w.cols - k < kChunk ? w.cols - k : kChunk;
      float chunk[kChunk];
      ToF32(w, (n0 + i) * w.ld + k, n, chunk);
      const std::int64_t whole = n / kWide * kWide;
      for (int r = 0; r < m; ++r) {
        const float* xs = x + r * ldx + k;
        for (std::int64_t j = 0; j < whole; j += kWide)
          for (int l = 0; l < kWide; ++l) sums[r][l] += chunk[j + l] * xs[j + l];
        for (std::int64_t j = whole; j < n; ++j) sums[r][j - whole] += chunk[j] * xs[j];
      }
    }
    for (int r = 0; r < m; ++r) {
      float total = 0;
      for (int l = 0; l < kWide; ++l) total += sums[r][l];
      out[i * kVectorRows + r] += total;
    }
  }
}

[[maybe_unused]] bool generic_gemv_int8(const Source& w, std::int64_t n0, int count,
                                        const Int8Row* x, int m, float* out) {
  const std::int64_t groups = w.cols / 32;
  const auto zero = static_cast<float>(zero_of(w.codec));
  for (int i = 0; i < count; ++i) {
    float sums[kVectorRows] = {};
    for (std::int64_t g = 0; g < groups; ++g) {
      Group group;
      unpack(w.codec, static_cast<const std::uint8_t*>(w.data), (n0 + i) * groups + g, group);
      for (int r = 0; r < m; ++r) {
        const std::int8_t* codes = x[r].codes + g * 32;
        for (int h = 0; h < 2; ++h) {
          std::int32_t dot = 0;
          for (int j = 0; j < 16; ++j) dot += codes[h * 16 + j] * group.codes[h * 16 + j];
          const float offset = group.min[h] - group.scale[h] * zero;
          sums[r] += group.scale[h] * x[r].scale_sum[g * 2] * static_cast<float>(dot) +
                     offset * x[r].half_sums[g * 2 + h];
        }
      }
    }
    for (int r = 0; r < m; ++r) out[i * kVectorRows + r] += sums[r];
  }
  return true;
}

// ---- the store
// --------------------------------------------------------------------------------------------------------

template <class T, T (*Narrow)(float), float (*Widen)(T)>
inline void store_rows(const float* tile, std::int64_t tile_ld, int rows, int cols, float alpha,
                       bool accumulate, void* y, std::int64_t ldy) {
  for (int r = 0; r < rows; ++r) {
    const float* in = tile + r * tile_ld;
    auto* out = static_cast<std::uint8_t*>(y) + r * ldy * static_cast<std::int64_t>(sizeof(T));
    for (int c = 0; c < cols; ++c) {
      T old = 0;
      if (accumulate) std::memcpy(&old, out + c * sizeof(T), sizeof(T));
      const float value = accumulate ? Widen(old) + alpha * in[c] : alpha * in[c];
      const T narrow = Narrow(value);
      std::memcpy(out + c * sizeof(T), &narrow, sizeof(T));
    }
  }
}
void generic_store(const float* tile, std::int64_t tile_ld, int rows, int cols, float alpha,
                   bool accumulate, Codec type, void* y, std::int64_t ldy) {
  switch (type) {
    case Codec::bf16:
      return store_rows<std::uint16_t, to_bf16_bits, from_bf16>(tile, tile_ld, rows, cols, alpha,
                                                                accumulate, y, ldy);
    case Codec::f16:
      return store_rows<std::uint16_t, to_f16_bits, from_f16>(tile, tile_ld, rows, cols, alpha,
                                                              accumulate, y, ldy);
    default:
      return store_rows<std::uint32_t, bits_of, float_of>(tile, tile_ld, rows, cols, alpha,
                                                          accumulate, y, ldy);
  }
}

template <void (*ToF32)(const Source&, std::int64_t, std::int64_t, float*)>
constexpr Inner generic_inner() {
  Inner i;
  i.mr = kRows;
  i.nr = kWidth;
  i.to_f32 = ToF32;
  i.to_bf16 = generic_to_bf16<ToF32>;
  i.transpose = generic_transpose;
  i.interleave = generic_interleave;
  i.product_f32 = generic_product_f32;
  i.product_bf16 = nullptr;
  i.product_int8 = generic_product_int8;
  i.pack_int8 = generic_pack_int8;
  i.quantize_panel = generic_quantize_panel<ToF32>;
  i.quantize_row = generic_quantize_row<ToF32>;
  i.store = generic_store;
  i.gemv_f32 = generic_gemv_f32<ToF32>;
  i.gemv_int8 = generic_gemv_int8;
  return i;
}

}  // namespace
}  // namespace supersonic::cpu
