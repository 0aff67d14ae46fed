// Activations prepared once for all products that read them: int8 rows with scales, and bf16 rows
// in panels. A panel has at most mr rows, evenly cut: what one tile of Y takes.
#pragma once
#include "backend/cpu/kernels/gemm_source.h"

namespace supersonic::cpu::gemm_parts {

inline int64_t panel_count(int64_t m) { return ceil_div(m, inner().mr); }
inline int64_t panel_begin(int64_t m, int64_t panel) { return m * panel / panel_count(m); }

// m <= kVectorRows: per row codes[padded k], {scale, scaled sum}[groups], {half, half}[groups],
// each a multiple of a line.
Int8Row prepared_row(const void* data, int64_t k, int64_t row);
// Otherwise panels, one after another.
const std::uint8_t* prepared_panel(const void* data, int64_t m, int64_t k, int64_t panel);
// Elements k0..k0+count of one prepared row as floats, for weights that have no int8 loop.
void widen_prepared(const void* data, int64_t m, int64_t k, int64_t row, int64_t k0, int64_t count,
                    float* out);

// Rows row0..row0+rows of a dense source as a bf16 panel: words[step][rows], two elements of K a
// word, zero behind an odd K.
void pack_bf16_rows(const Source& x, int64_t row0, int rows, std::uint32_t* words);
// A panel of a buffer that pack_bf16_panels filled.
const std::uint32_t* bf16_panel(const void* data, int64_t m, int64_t k, int64_t panel);

}  // namespace supersonic::cpu::gemm_parts
