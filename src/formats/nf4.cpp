// NF4: the records, the scales' double quantization, and bitsandbytes' orders of rounding.
#include "formats/nf4.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "formats/dynamic8.h"
#include "formats/record.h"

namespace supersonic::formats {
namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::size_t plane_bytes(const Format& self, int plane, std::int64_t rows, std::int64_t cols) {
  CHECK(plane >= 0 && plane < self.planes, "{}: there is no plane {}", self.name, plane);
  const std::int64_t count = checked_weights(self, rows, cols),
                     blocks = ceil_div(count, Nf4::weights);
  const bool nested = self.planes == 4;
  const std::int64_t bytes[4] = {ceil_div(count, 2), nested ? blocks : 4 * blocks,
                                 4 * ceil_div(blocks, Nf4::scales_per_block), 4};
  return static_cast<std::size_t>(bytes[plane]);
}

// Decodes with the scales that scales_of(first block, number, out) gives, 64 blocks at a time.
template <class ScalesOf>
void decode_with(const void* codes, std::int64_t first, std::int64_t count, float* out,
                 ScalesOf scales_of) {
  constexpr int kBatch = 64;
  float scales[kBatch];
  const auto* bytes = static_cast<const std::uint8_t*>(codes) + first / 2;
  for (std::int64_t block = first / Nf4::weights; count > 0; block += kBatch) {
    const auto n = std::min<std::int64_t>(kBatch, ceil_div(count, Nf4::weights));
    scales_of(block, n, scales);
    for (int b = 0; b < n;
         ++b, bytes += Nf4::weights / 2, out += Nf4::weights, count -= Nf4::weights) {
      Nf4::decode(bytes, static_cast<int>(std::min<std::int64_t>(Nf4::weights, count)), scales[b],
                  out);
    }
  }
}

void decode_nested(const Planes& planes, std::int64_t first, std::int64_t count, float* out) {
  decode_with(planes.data[0], first, count, out,
              [&](std::int64_t block, std::int64_t n, float* scales) {
                nf4_scales(planes, block, n, scales);
              });
}

void decode_plain(const Planes& planes, std::int64_t first, std::int64_t count, float* out) {
  decode_with(planes.data[0], first, count, out,
              [&](std::int64_t block, std::int64_t n, float* scales) {
                nf4_plain_scales(planes, block, n, scales);
              });
}

// Codes of one block of n weights; returns its scale. A whole block multiplies by the inverse, a
// short one divides.
float encode_block(const float* w, int n, std::uint8_t* codes) {
  constexpr float kSmallest = 1e-38f;
  float largest = 0;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::fabs(w[i]));
  const float divisor = std::max(largest, kSmallest), inverse = 1.0f / divisor;
  const bool whole = n == Nf4::weights;
  float x[Nf4::weights] = {};  // the zeros complete the last byte when n is odd
  std::uint8_t q[Nf4::weights];
  for (int i = 0; i < n; ++i) x[i] = Dynamic8::clamped(whole ? w[i] * inverse : w[i] / divisor);
  Nf4::nearest(x, Nf4::weights, q);
  for (int i = 0; i < n; i += 2) codes[i / 2] = static_cast<std::uint8_t>(q[i] << 4 | q[i + 1]);
  return whole ? largest : divisor;
}

void encode_codes(const Format& format, const float* w, std::int64_t rows, std::int64_t cols,
                  void* codes, float* scales) {
  const std::int64_t count = checked_weights(format, rows, cols);
  auto* bytes = static_cast<std::uint8_t*>(codes);
  for (std::int64_t i = 0; i < count; ++i) {
    CHECK(std::isfinite(w[i]), "{}: weight {} of row {} is {}", format.name, i % cols, i / cols,
          w[i]);
  }
  for (std::int64_t first = 0; first < count; first += Nf4::weights) {
    const auto n = static_cast<int>(std::min<std::int64_t>(Nf4::weights, count - first));
    scales[first / Nf4::weights] = encode_block(w + first, n, bytes + first / 2);
  }
}

void encode_plain(const float* w, std::int64_t rows, std::int64_t cols, void* const* planes) {
  encode_codes(kNf4Plain, w, rows, cols, planes[0], static_cast<float*>(planes[1]));
}

// The sum in the order of PyTorch's CPU kernel with one thread and 8 lanes, from which bitsandbytes
// takes the mean: 4 x 8 running sums, folded into a next level after every 2^p additions, the
// levels of one column after another at the end.
float lane_sum(const float* x, std::int64_t n) {
  constexpr int kLanes = 8, kColumns = 4, kLevels = 4, kStride = kLanes * kColumns;
  const std::int64_t rows = n / kStride;
  int log2 = 0;
  while ((std::int64_t{1} << log2) < rows) ++log2;
  const int power = std::max(4, log2 / kLevels);
  const std::int64_t mask = (std::int64_t{1} << power) - 1;
  float level[kLevels][kStride] = {};
  for (std::int64_t row = 0; row < rows;) {
    for (int k = 0; k < kStride; ++k) level[0][k] += x[row * kStride + k];
    if ((++row & mask) != 0) continue;
    for (int l = 1; l < kLevels; ++l) {
      for (int k = 0; k < kStride; ++k) {
        level[l][k] += level[l - 1][k];
        level[l - 1][k] = 0;
      }
      if ((row & mask << (l * power)) != 0) break;
    }
  }
  for (int l = 1; l < kLevels; ++l) {
    for (int k = 0; k < kStride; ++k) level[0][k] += level[l][k];
  }
  float* lanes = level[0];
  std::int64_t i = rows * kStride;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += x[i + k];
  }
  for (int column = 1; column < kColumns; ++column) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += lanes[column * kLanes + k];
  }
  float sum = 0;
  for (; i < n; ++i) sum += x[i];
  for (int k = 0; k < kLanes; ++k) sum += lanes[k];
  return sum;
}

// x in [-1, 1], moved to the nearest of 65536 even steps: bitsandbytes looks codes up by this step
// on a CPU.
float on_step(float x) {
  const auto step = static_cast<int>((x + 1.0f) * 0.5f * 65535.0f + 0.5f);
  return -1.0f + 2.0f * static_cast<float>(step) / 65535.0f;
}

// scales -> codes, a scale for each 256 of them, and their mean. Scales are overwritten.
void encode_scales(std::vector<float>& scales, std::uint8_t* codes, float* nested, float* offset) {
  const auto count = static_cast<std::int64_t>(scales.size());
  *offset = count > 0 ? lane_sum(scales.data(), count) / static_cast<float>(count) : 0.0f;
  for (float& s : scales) s -= *offset;
  for (std::int64_t first = 0; first < count; first += Nf4::scales_per_block) {
    const std::int64_t end = std::min<std::int64_t>(count, first + Nf4::scales_per_block);
    float largest = 0;
    for (std::int64_t i = first; i < end; ++i) largest = std::max(largest, std::fabs(scales[i]));
    if (largest < Dynamic8::kSmallestBlock) largest = 0;
    const float inverse = 1.0f / largest;
    for (std::int64_t i = first; i < end; ++i) {
      codes[i] =
          largest > 0 ? kDynamicSigned.encode(on_step(Dynamic8::clamped(scales[i] * inverse))) : 0;
    }
    nested[first / Nf4::scales_per_block] = largest;
  }
}

void encode_nested(const float* w, std::int64_t rows, std::int64_t cols, void* const* planes) {
  std::vector<float> scales(static_cast<std::size_t>(ceil_div(rows * cols, Nf4::weights)));
  encode_codes(kNf4, w, rows, cols, planes[0], scales.data());
  encode_scales(scales, static_cast<std::uint8_t*>(planes[1]), static_cast<float*>(planes[2]),
                static_cast<float*>(planes[3]));
}

constexpr Format record(std::string_view name, int planes, decltype(Format::decode) decode,
                        decltype(Format::encode) encode) {
  Format f;
  f.name = name;
  f.block = Nf4::weights;
  f.block_bytes = Nf4::weights / 2;
  f.row_blocks = false;
  f.planes = planes;
  f.plane_bytes = plane_bytes;
  f.decode = decode;
  f.encode = encode;
  return f;
}

}  // namespace

void nf4_scales(const Planes& planes, std::int64_t first, std::int64_t count, float* out) {
  const auto* codes = static_cast<const std::uint8_t*>(planes.data[1]) + first;
  const auto* nested = static_cast<const float*>(planes.data[2]);
  const float offset = *static_cast<const float*>(planes.data[3]);
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = kDynamicSigned.values[codes[i]] * nested[(first + i) / Nf4::scales_per_block] + offset;
  }
}

void nf4_plain_scales(const Planes& planes, std::int64_t first, std::int64_t count, float* out) {
  std::memcpy(out, static_cast<const float*>(planes.data[1]) + first,
              static_cast<std::size_t>(count) * 4);
}

constinit const Format kNf4 = record(Nf4::name, 4, decode_nested, encode_nested);
constinit const Format kNf4Plain = record(Nf4::plain_name, 2, decode_plain, encode_plain);

}  // namespace supersonic::formats
