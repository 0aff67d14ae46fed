#include "backend/cpu/kernels/gemm_rows.h"

#include <algorithm>

#include "core/error.h"

namespace supersonic::cpu {
namespace gemm_parts {
namespace {

struct RowLayout {
  size_t codes, pairs, row;
  explicit RowLayout(int64_t k)
      : codes(round_up(static_cast<size_t>(k), kLine)),
        pairs(round_up(static_cast<size_t>(ceil_div(k, kGroup)) * 8, kLine)),
        row(codes + 2 * pairs) {}
};

const std::uint8_t* prepared_bytes(const void* data) {
  return align_up(static_cast<const std::uint8_t*>(data), kLine);
}

}  // namespace

Int8Row prepared_row(const void* data, int64_t k, int64_t row) {
  const RowLayout layout(k);
  const auto* p = prepared_bytes(data) + layout.row * static_cast<size_t>(row);
  return {reinterpret_cast<const std::int8_t*>(p), reinterpret_cast<const float*>(p + layout.codes),
          reinterpret_cast<const float*>(p + layout.codes + layout.pairs)};
}
const std::uint8_t* prepared_panel(const void* data, int64_t m, int64_t k, int64_t panel) {
  const auto rows_before = static_cast<size_t>(panel_begin(m, panel));
  return prepared_bytes(data) +
         static_cast<size_t>(ceil_div(k, kGroup)) * int8_group_bytes(rows_before);
}

void widen_prepared(const void* data, int64_t m, int64_t k, int64_t row, int64_t k0, int64_t count,
                    float* out) {
  if (m <= kVectorRows) {
    const Int8Row r = prepared_row(data, k, row);
    for (int64_t i = 0; i < count; ++i)
      out[i] = r.scale_sum[(k0 + i) / kGroup * 2] * static_cast<float>(r.codes[k0 + i]);
    return;
  }
  int64_t panel = row / inner().mr;
  while (panel_begin(m, panel + 1) <= row) ++panel;
  const int64_t begin = panel_begin(m, panel), rows = panel_begin(m, panel + 1) - begin,
                r = row - begin;
  const auto* groups = prepared_panel(data, m, k, panel);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t g = (k0 + i) / kGroup, j = (k0 + i) % kGroup;
    const auto* group =
        groups + static_cast<size_t>(g) * int8_group_bytes(static_cast<size_t>(rows));
    const auto code = static_cast<std::int8_t>(group[(j / 4 * rows + r) * 4 + j % 4]);
    out[i] = reinterpret_cast<const float*>(group + rows * kGroup)[r] * static_cast<float>(code);
  }
}

void pack_bf16_rows(const Source& x, int64_t row0, int rows, std::uint32_t* words) {
  const int64_t k = x.cols, steps = ceil_div(k, 2);
  const auto* data = static_cast<const std::uint8_t*>(x.data);
  if (x.codec == Codec::bf16 && k % 2 == 0 && x.ld % 2 == 0 &&
      reinterpret_cast<std::uintptr_t>(data) % 4 == 0) {
    const auto* in = reinterpret_cast<const std::uint32_t*>(data) + row0 * x.ld / 2;
    return inner().transpose(in, x.ld / 2, rows, steps, words, rows);
  }
  constexpr int64_t kChunk = 256;  // words of a row that are converted at a time
  alignas(64) std::uint32_t chunk[kMaxRowsPerPanel * kChunk];
  for (int64_t s = 0; s < steps; s += kChunk) {
    const int64_t some = std::min(kChunk, steps - s), count = std::min(2 * some, k - 2 * s);
    for (int r = 0; r < rows; ++r) {
      auto* to = reinterpret_cast<std::uint16_t*>(chunk + r * kChunk);
      inner().to_bf16(x, (row0 + r) * x.ld + 2 * s, count, to);
      if (count % 2) to[count] = 0;
    }
    inner().transpose(chunk, kChunk, rows, some, words + s * rows, rows);
  }
}

const std::uint32_t* bf16_panel(const void* data, int64_t m, int64_t k, int64_t panel) {
  return static_cast<const std::uint32_t*>(data) + panel_begin(m, panel) * ceil_div(k, 2);
}

}  // namespace gemm_parts

using namespace gemm_parts;

namespace {

// What is to be prepared, checked.
Source dense_rows(const char* what, const void* x, DType dtype, int64_t m, int64_t k, int64_t ld) {
  const MatrixRef ref{.data = x, .dtype = dtype, .rows = m, .cols = k, .ld = ld};
  Source s = source_of(ref);
  s.planes = nullptr;  // dense, and ref ends here
  CHECK(s.codec != Codec::i8_rows, "{}: x is i8, but must be f32, bf16 or f16", what);
  CHECK(ld >= k || m <= 1, "{}: a row stride of {} for {} columns", what, ld, k);
  return s;
}

}  // namespace

size_t int8_rows_bytes(int64_t m, int64_t k) {
  CHECK(m >= 0 && k >= 0, "int8 rows: negative size {} x {}", m, k);
  const size_t body = m <= kVectorRows ? RowLayout(k).row * static_cast<size_t>(m)
                                       : static_cast<size_t>(ceil_div(k, kGroup)) *
                                             int8_group_bytes(static_cast<size_t>(m));
  return body + kLine;
}

void quantize_int8_rows(Pool& pool, const void* x, DType dtype, int64_t m, int64_t k, int64_t ld,
                        void* out) {
  const Source s = dense_rows("int8 rows", x, dtype, m, k, ld);
  if (m == 0 || k == 0) return;
  if (m > kVectorRows) {
    return pool.ranges(panel_count(m), 1, [&](int64_t p0, int64_t p1, int) {
      for (int64_t p = p0; p < p1; ++p) {
        const int64_t row0 = panel_begin(m, p);
        inner().quantize_panel(s, row0, static_cast<int>(panel_begin(m, p + 1) - row0),
                               const_cast<std::uint8_t*>(prepared_panel(out, m, k, p)));
      }
    });
  }
  const RowLayout layout(k);
  for (int64_t r = 0; r < m; ++r) {
    const Int8Row row = prepared_row(out, k, r);
    auto* codes = const_cast<std::int8_t*>(row.codes);
    std::fill_n(codes, layout.codes, std::int8_t{0});
    std::fill_n(const_cast<float*>(row.scale_sum), layout.pairs / 2, 0.0f);
    inner().quantize_row(s, r, codes, const_cast<float*>(row.scale_sum),
                         const_cast<float*>(row.half_sums));
  }
}

bool packs_bf16() { return inner().native_bf16; }

size_t bf16_panels_bytes(int64_t m, int64_t k) {
  CHECK(m >= 0 && k >= 0, "bf16 panels: negative size {} x {}", m, k);
  return static_cast<size_t>(m * ceil_div(k, 2)) * sizeof(std::uint32_t);
}

void pack_bf16_panels(Pool& pool, const void* x, DType dtype, int64_t m, int64_t k, int64_t ld,
                      void* out) {
  const Source s = dense_rows("bf16 panels", x, dtype, m, k, ld);
  if (m == 0 || k == 0) return;
  pool.ranges(panel_count(m), 4, [&](int64_t p0, int64_t p1, int) {
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t row0 = panel_begin(m, p);
      pack_bf16_rows(s, row0, static_cast<int>(panel_begin(m, p + 1) - row0),
                     const_cast<std::uint32_t*>(bf16_panel(out, m, k, p)));
    }
  });
}

}  // namespace supersonic::cpu
