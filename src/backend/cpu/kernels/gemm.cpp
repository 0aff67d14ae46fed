// The matrix product's driver: checks the problem, cuts it up, shares it among the threads.
//
// Many rows: threads own a rectangle of Y. X is packed once by all threads together (rounded,
// transposed into panels); then each thread takes columns in tiles, decodes the tile's weights into
// a packed block that stays in L2, and runs all its row panels over it. Sums live in a tile of fp32
// in L1 from the first term to the store; only when K is too long for a block of weights do they
// wait in the workspace between K blocks. Up to kVectorRows rows: weights are read straight from
// where they lie, columns are shared out evenly.
#include "backend/cpu/kernels/gemm.h"

#include <algorithm>
#include <array>

#include "backend/cpu/kernels/gemm_rows.h"
#include "core/error.h"

namespace supersonic::cpu {
namespace {

using namespace gemm_parts;

constexpr size_t kBlockBytes = 320 << 10;   // packed weights that a thread keeps in L2
constexpr size_t kPackedXBytes = 12 << 20;  // packed activations shared by the threads, all terms
constexpr int64_t kMinRowBlock = 512;       // weights are decoded once for so many rows at least
constexpr int64_t kSegmentStep = 256;       // K blocks begin at whole blocks of every GGUF format

// ---- the cut of one product
// ------------------------------------------------------------------------------------------

enum class Kind : std::uint8_t { f32, bf16, int8 };  // how a term is multiplied

struct Term {
  Source x, w;
  bool trans_x, trans_w;
  Kind kind;
  Affine affine;
  int64_t k, steps;      // steps: k in words (1, 2, 4 elements), int8 padded to groups
  size_t x_offset;       // of this term in a packed X panel, bytes per row
  bool packed_x;         // false: prepared rows or panels, used in place
  const void* prepared;  // of i8 rows
  const void* panels;    // of bf16 rows
};

int64_t step_elements(Kind kind) { return kind == Kind::f32 ? 1 : kind == Kind::bf16 ? 2 : kGroup; }
// Bytes of one packed step for one column.
size_t step_bytes(const Term& t) {
  return t.kind != Kind::int8
             ? 4
             : size_t{kGroup} + 4u * (t.affine.halves ? 2 : 1) * (t.affine.has_min ? 2 : 1);
}

struct Segment {
  int term;
  int64_t k0, steps;
};

struct Cut {
  std::array<Term, kMaxGemmTerms> terms;
  int count = 0;
  int64_t m, n;
  bool vector_path = false;
  // Threads: row_parts x col_parts rectangles.
  int row_parts = 1, col_parts = 1;
  int64_t granule;    // columns are cut at multiples of this
  int64_t tiles;      // of columns, decoded one at a time
  int64_t tile_cols;  // in the widest of them
  int64_t panels, panels_per_block;
  size_t x_row_bytes;         // packed X: bytes per row
  int64_t block_steps_bytes;  // packed weights: limit of bytes per column in one K block
  bool one_block;             // all of K fits in one K block
  size_t x_bytes, w_bytes, linear_bytes,
      sums_bytes;  // parts of the workspace; all but the first per thread
  size_t total;
};

void check_matrix(const MatrixRef& a, int64_t rows, int64_t cols, const char* name, size_t term) {
  CHECK(a.rows == rows && a.cols == cols, "gemm: term {}: {} is {} x {}, but must be {} x {}", term,
        name, a.rows, a.cols, rows, cols);
  if (a.format) {
    CHECK(a.format->block >= 1 && a.format->block <= kMaxFormatBlock,
          "gemm: {} has blocks of {} weights; at most {} are supported", a.format->name,
          a.format->block, kMaxFormatBlock);
    CHECK(!a.format->row_blocks || cols % a.format->block == 0,
          "gemm: term {}: {} has {} columns, not a multiple of {}'s block of {}", term, name, cols,
          a.format->name, a.format->block);
  } else if (a.dtype != DType::i8 && !a.panels) {
    CHECK(a.ld >= cols || rows <= 1, "gemm: term {}: {} has a row stride of {} for {} columns",
          term, name, a.ld, cols);
  }
}

Term make_term(const GemmProblem& p, size_t index) {
  const GemmTerm& g = p.terms[index];
  const int64_t k = g.trans_x ? g.x.rows : g.x.cols;
  check_matrix(g.x, g.trans_x ? k : p.m, g.trans_x ? p.m : k, "X", index);
  check_matrix(g.w, g.trans_w ? k : p.n, g.trans_w ? p.n : k, "W", index);
  CHECK(!g.x.format, "gemm: term {}: X cannot be quantized to {}", index, g.x.format->name);
  Term t = {};
  t.x = source_of(g.x);
  t.w = source_of(g.w);
  t.trans_x = g.trans_x;
  t.trans_w = g.trans_w;
  t.k = k;
  CHECK(t.w.codec != Codec::i8_rows, "gemm: term {}: W cannot be prepared int8 rows", index);
  const bool prepared = t.x.codec == Codec::i8_rows;
  CHECK(!prepared || !t.trans_x, "gemm: term {}: prepared int8 rows cannot be transposed", index);
  t.affine = affine_of(t.w.codec);
  t.prepared = prepared ? g.x.data : nullptr;
  t.kind = prepared && t.affine.supported && !t.trans_w && p.m > kVectorRows ? Kind::int8
           : p.compute != Compute::fp32 && inner().native_bf16               ? Kind::bf16
                                                                             : Kind::f32;
  CHECK(!g.x.panels || (t.kind == Kind::bf16 && !t.trans_x && p.m > kVectorRows),
        "gemm: term {}: bf16 panels serve products of many rows in bf16, X as it is", index);
  t.panels = g.x.panels ? g.x.data : nullptr;
  t.packed_x = t.kind != Kind::int8 && !g.x.panels;
  t.steps = ceil_div(k, step_elements(t.kind));
  return t;
}

// Threads get rectangles of Y; the best cut has the least work in its largest one. Decoding a
// column counts as rows.
void choose_parts(Cut& cut, int threads) {
  constexpr int64_t kDecodeRows = 32;
  int64_t best = INT64_MAX;
  const int64_t units = ceil_div(cut.n, cut.granule);
  for (int rows = 1; rows <= threads; ++rows) {
    if (threads % rows) continue;
    const int cols = threads / rows;
    const int64_t work =
        (ceil_div(cut.panels, rows) * inner().mr + kDecodeRows) * ceil_div(units, cols);
    if (work < best) best = work, cut.row_parts = rows, cut.col_parts = cols;
  }
}

void size_workspace(Cut& cut, int threads) {
  const int64_t nr = inner().nr, mr = inner().mr;
  size_t col_bytes = 0;
  for (int i = 0; i < cut.count; ++i) {
    Term& t = cut.terms[i];
    if (t.packed_x) {
      t.x_offset = cut.x_row_bytes;
      cut.x_row_bytes += static_cast<size_t>(t.steps) * 4;
    }
    col_bytes += static_cast<size_t>(t.steps) * step_bytes(t);
  }
  const int64_t widest = ceil_div(ceil_div(cut.n, cut.granule), cut.col_parts) * cut.granule;
  const int64_t fitting = static_cast<int64_t>(kBlockBytes / std::max<size_t>(col_bytes, 1)) /
                          cut.granule * cut.granule;
  // Equal tiles rather than a small last one, and as many for each thread.
  cut.tiles = cut.col_parts *
              ceil_div(widest, std::clamp(fitting, cut.granule, std::max(widest, cut.granule)));
  cut.tile_cols = ceil_div(ceil_div(cut.n, cut.granule), cut.tiles) * cut.granule;
  const size_t block_col_bytes =
      std::max<size_t>(kBlockBytes / static_cast<size_t>(cut.tile_cols), kSegmentStep * 8);
  cut.one_block = col_bytes <= block_col_bytes;
  cut.block_steps_bytes = static_cast<int64_t>(cut.one_block ? col_bytes : block_col_bytes);

  const size_t panel_bytes = cut.x_row_bytes * static_cast<size_t>(mr);
  const int64_t fitting_panels =
      panel_bytes ? static_cast<int64_t>(kPackedXBytes / panel_bytes) : cut.panels;
  cut.panels_per_block =
      std::clamp(std::max(fitting_panels, ceil_div(kMinRowBlock, mr)), int64_t{1}, cut.panels);
  cut.x_bytes = round_up(static_cast<size_t>(cut.panels_per_block) * panel_bytes, kLine);
  cut.w_bytes = round_up(
      static_cast<size_t>(cut.block_steps_bytes) * static_cast<size_t>(round_up(cut.tile_cols, nr)),
      kLine);
  // Rows on their way into a panel: up to 16 rows of one K block, or two rows of a transposed tile.
  const size_t linear_row = std::max<size_t>(static_cast<size_t>(cut.block_steps_bytes) + 256,
                                             static_cast<size_t>(cut.tile_cols) * 4 + 256);
  size_t x_linear = 0;
  for (int i = 0; i < cut.count; ++i)
    if (cut.terms[i].packed_x)
      x_linear = std::max(x_linear, static_cast<size_t>(cut.terms[i].steps) * 4 + 64);
  cut.linear_bytes = round_up(kMaxRowsPerPanel * std::max(linear_row, x_linear), kLine);
  cut.sums_bytes =
      cut.one_block
          ? 0
          : round_up(
                static_cast<size_t>(cut.panels_per_block * mr * round_up(cut.tile_cols, nr)) * 4,
                kLine);
  cut.total = cut.x_bytes +
              static_cast<size_t>(threads) * (cut.w_bytes + cut.linear_bytes + cut.sums_bytes) +
              kLine;
}

Cut make_cut(const GemmProblem& p, int threads) {
  CHECK(p.m >= 0 && p.n >= 0, "gemm: negative size {} x {}", p.m, p.n);
  CHECK(p.terms.size() <= kMaxGemmTerms, "gemm: {} terms, at most {} are supported", p.terms.size(),
        kMaxGemmTerms);
  CHECK(p.y_dtype == DType::f32 || p.y_dtype == DType::bf16 || p.y_dtype == DType::f16,
        "gemm: y cannot be {}: use f32, bf16 or f16", name_of(p.y_dtype));
  CHECK(p.ldy >= p.n || p.m <= 1, "gemm: y has a row stride of {} for {} columns", p.ldy, p.n);
  Cut cut = {};
  cut.m = p.m;
  cut.n = p.n;
  cut.vector_path = p.m <= kVectorRows;
  cut.granule = inner().nr;
  for (size_t i = 0; i < p.terms.size(); ++i) {
    Term t = make_term(p, i);
    if (t.k == 0) continue;
    if (t.trans_x || t.trans_w) cut.vector_path = false;
    if (t.trans_w && p.terms[i].w.format && p.terms[i].w.format->row_blocks)
      cut.granule =
          std::max(cut.granule,
                   round_up(int64_t{t.w.codec == Codec::other ? t.w.block : kGroup}, cut.granule));
    cut.terms[cut.count++] = t;
  }
  cut.panels = panel_count(p.m);
  if (p.m == 0 || p.n == 0) return cut;
  if (cut.vector_path) {
    for (int i = 0; i < cut.count; ++i)
      cut.total += round_up(static_cast<size_t>(p.m * round_up(cut.terms[i].k, 16)) * 4, kLine);
    cut.total = static_cast<size_t>(threads) * cut.total + kLine;
    return cut;
  }
  choose_parts(cut, threads);
  size_workspace(cut, threads);
  return cut;
}

// ---- packing
// ----------------------------------------------------------------------------------------------------------

// Elements of a row as words of the term's kind, zeros up to whole words.
void convert(const Term& t, const Source& s, int64_t first, int64_t count, void* out) {
  if (t.kind == Kind::f32) return inner().to_f32(s, first, count, static_cast<float*>(out));
  auto* words = static_cast<std::uint16_t*>(out);
  inner().to_bf16(s, first, count, words);
  if (count % 2) words[count] = 0;
}

// `steps` steps of a transposed operand from stored row k0 on, columns c0..c0+cols, in panels of
// `panel` columns. A panel of at most half of it is `narrow` wide; panel c / `panel` begins at out
// + c * bytes.
void pack_transposed(const Term& t, const Source& s, int64_t k0, int64_t steps, int64_t c0,
                     int64_t cols, int64_t panel, int64_t narrow, std::uint8_t* linear,
                     std::uint8_t* out) {
  const int64_t unit = step_elements(t.kind), rows = std::min(steps * unit, t.k - k0);
  const bool direct = t.kind == Kind::bf16 && s.codec == Codec::bf16;
  const int64_t ld = direct ? s.ld : round_up(cols, 32), batch = direct ? rows : 8;
  for (int64_t k = 0; k < rows; k += batch) {
    const int64_t some = std::min(batch, rows - k);
    const std::uint8_t* in = linear;
    if (direct) {
      in = static_cast<const std::uint8_t*>(s.data) + ((k0 + k) * s.ld + c0) * 2;
    } else {
      for (int64_t i = 0; i < some; ++i) {
        const int64_t first = (k0 + k + i) * s.ld + c0;
        if (t.kind == Kind::bf16)
          inner().to_bf16(s, first, cols, reinterpret_cast<std::uint16_t*>(linear) + i * ld);
        else
          inner().to_f32(s, first, cols, reinterpret_cast<float*>(linear) + i * ld);
      }
    }
    for (int64_t c = 0; c < cols; c += panel) {
      const int64_t count = std::min(panel, cols - c), width = count <= narrow ? narrow : panel;
      auto* words = reinterpret_cast<std::uint32_t*>(out) + steps * c + k / unit * width;
      if (t.kind == Kind::bf16) {
        inner().interleave(in + c * 2, ld, some, static_cast<int>(count), words,
                           static_cast<int>(width));
        continue;
      }
      for (int64_t i = 0; i < some; ++i, words += width) {
        std::copy_n(reinterpret_cast<const std::uint32_t*>(linear) + i * ld + c, count, words);
        std::fill(words + count, words + width, 0u);
      }
    }
  }
}

void pack_x(const Cut& cut, const Term& t, int64_t panel, std::uint8_t* linear, std::uint8_t* out) {
  const int64_t row0 = panel_begin(cut.m, panel);
  const int rows = static_cast<int>(panel_begin(cut.m, panel + 1) - row0);
  auto* words = reinterpret_cast<std::uint32_t*>(out);
  if (t.trans_x) return pack_transposed(t, t.x, 0, t.steps, row0, rows, rows, 0, linear, out);
  if (t.kind == Kind::bf16 && !t.prepared) return pack_bf16_rows(t.x, row0, rows, words);
  const int64_t ld = round_up(t.steps, 16);
  for (int r = 0; r < rows; ++r) {
    auto* row = reinterpret_cast<std::uint32_t*>(linear) + r * ld;
    if (!t.prepared) {
      convert(t, t.x, (row0 + r) * t.x.ld, t.k, row);
      continue;
    }
    // Prepared rows before weights without an int8 loop: back to floats, a chunk at a time.
    for (int64_t k = 0; k < t.k; k += 256) {
      float chunk[256];
      const int64_t n = std::min<int64_t>(256, t.k - k);
      widen_prepared(t.prepared, cut.m, t.k, row0 + r, k, n, chunk);
      Source s;
      s.data = chunk;
      convert(t, s, 0, n, row + k / step_elements(t.kind));
    }
  }
  inner().transpose(reinterpret_cast<const std::uint32_t*>(linear), ld, rows, t.steps, words, rows);
}

// Columns c0..c0+cols of one segment, in panels of nr (the last may be narrow), one after another.
void pack_w(const Term& t, const Segment& s, int64_t c0, int64_t cols, std::uint8_t* linear,
            std::uint8_t* out) {
  const int64_t nr = inner().nr, unit = step_elements(t.kind);
  const size_t bytes = step_bytes(t) * static_cast<size_t>(s.steps);
  if (t.trans_w) return pack_transposed(t, t.w, s.k0, s.steps, c0, cols, nr, nr / 2, linear, out);
  for (int64_t c = 0; c < cols; c += nr) {
    const int count = static_cast<int>(std::min(nr, cols - c));
    const int width = static_cast<int>(count <= nr / 2 ? nr / 2 : nr);
    std::uint8_t* panel = out + bytes * static_cast<size_t>(c);
    if (t.kind == Kind::int8) {
      inner().pack_int8(t.w, t.affine, c0 + c, count, width, s.k0 / kGroup, s.steps, panel);
      continue;
    }
    const int64_t elements = std::min(s.steps * unit, t.k - s.k0), ld = round_up(s.steps, 16);
    auto* rows = reinterpret_cast<std::uint32_t*>(linear);
    for (int r = 0; r < width; r += kMaxRowsPerPanel) {
      const int some = std::min(kMaxRowsPerPanel, width - r);
      for (int i = 0; i < some; ++i) {
        if (r + i < count)
          convert(t, t.w, (c0 + c + r + i) * t.w.ld + s.k0, elements, rows + i * ld);
        else
          std::fill_n(rows + i * ld, s.steps, 0u);
      }
      inner().transpose(rows, ld, some, s.steps, reinterpret_cast<std::uint32_t*>(panel) + r,
                        width);
    }
  }
}

// ---- many rows
// --------------------------------------------------------------------------------------------------------

struct Job {
  const GemmProblem& problem;
  const Cut& cut;
  Pool& pool;
  std::uint8_t* x;        // packed X
  std::uint8_t* scratch;  // per thread: weights, linear rows, sums
  Codec y_type;
};

// The next K block: segments from (term, k) on that fit into the block of packed weights.
int next_block(const Cut& cut, int& term, int64_t& k, Segment* out) {
  int count = 0;
  auto room = cut.block_steps_bytes;
  while (term < cut.count) {
    const Term& t = cut.terms[term];
    const int64_t unit = step_elements(t.kind), left = t.steps - k / unit,
                  bytes = static_cast<int64_t>(step_bytes(t));
    int64_t steps = std::min(left, room / bytes);
    if (steps < left) steps = steps * unit / kSegmentStep * kSegmentStep / unit;
    if (steps == 0) break;
    out[count++] = {term, k, steps};
    room -= steps * bytes;
    if (steps < left) {
      k += steps * unit;
      break;
    }
    ++term, k = 0;
  }
  return count;
}

const std::uint8_t* x_panel(const Job& job, const Segment& s, int64_t panel, int64_t first_panel,
                            int rows) {
  const Term& t = job.cut.terms[s.term];
  const int64_t step = s.k0 / step_elements(t.kind);
  if (t.kind == Kind::int8)
    return prepared_panel(t.prepared, job.cut.m, t.k, panel) +
           static_cast<size_t>(step) * int8_group_bytes(static_cast<size_t>(rows));
  if (t.panels)
    return reinterpret_cast<const std::uint8_t*>(bf16_panel(t.panels, job.cut.m, t.k, panel) +
                                                 step * rows);
  const auto mr = static_cast<size_t>(inner().mr);
  return job.x + static_cast<size_t>(panel - first_panel) * job.cut.x_row_bytes * mr +
         t.x_offset * mr + static_cast<size_t>(step * rows) * 4;
}

void multiply(const Term& t, int rows, int width, const Segment& s, const std::uint8_t* x,
              const std::uint8_t* w, float* tile, bool add) {
  switch (t.kind) {
    case Kind::f32:
      return inner().product_f32(rows, width, s.steps, reinterpret_cast<const float*>(x),
                                 reinterpret_cast<const float*>(w), tile, add);
    case Kind::bf16:
      return inner().product_bf16(rows, width, s.steps, reinterpret_cast<const std::uint32_t*>(x),
                                  reinterpret_cast<const std::uint32_t*>(w), tile, add);
    case Kind::int8:
      return inner().product_int8(t.affine, rows, width, s.steps, x, w, tile, add);
  }
}

// Panels p0..p1 times columns c0..c0+cols of one K block.
void run_block(const Job& job, const Segment* segments, int count, int64_t first_panel, int64_t p0,
               int64_t p1, int64_t c0, int64_t cols, const std::uint8_t* packed, float* sums,
               bool first, bool last) {
  const Cut& cut = job.cut;
  const int64_t nr = inner().nr;
  alignas(64) float local[kMaxRowsPerPanel * 64];
  const size_t element = size_of(job.problem.y_dtype);
  for (int64_t p = p0; p < p1; ++p) {
    const int64_t row0 = panel_begin(cut.m, p);
    const int rows = static_cast<int>(panel_begin(cut.m, p + 1) - row0);
    for (int64_t c = 0; c < cols; c += nr) {
      const int64_t valid = std::min(nr, cols - c);
      const int width = static_cast<int>(valid <= nr / 2 ? nr / 2 : nr);
      float* tile = cut.one_block
                        ? local
                        : sums + ((p - first_panel) * round_up(cut.tile_cols, nr) + c) * inner().mr;
      size_t offset = 0;
      for (int i = 0; i < count; ++i) {
        const Term& t = cut.terms[segments[i].term];
        const size_t bytes = step_bytes(t) * static_cast<size_t>(segments[i].steps);
        multiply(t, rows, width, segments[i], x_panel(job, segments[i], p, first_panel, rows),
                 packed + offset * static_cast<size_t>(round_up(cut.tile_cols, nr)) +
                     bytes * static_cast<size_t>(c),
                 tile, !first || i > 0);
        offset += bytes;
      }
      if (last) {
        auto* y = static_cast<std::uint8_t*>(job.problem.y) +
                  static_cast<size_t>(row0 * job.problem.ldy + c0 + c) * element;
        inner().store(tile, nr, rows, static_cast<int>(valid), job.problem.alpha,
                      job.problem.accumulate, job.y_type, y, job.problem.ldy);
      }
    }
  }
}

std::uint8_t* thread_scratch(const Job& job, int thread) {
  const Cut& cut = job.cut;
  return job.scratch +
         static_cast<size_t>(thread) * (cut.w_bytes + cut.linear_bytes + cut.sums_bytes);
}

void pack_x_panel(const Job& job, int64_t first_panel, int64_t panel, int thread) {
  const Cut& cut = job.cut;
  const auto mr = static_cast<size_t>(inner().mr);
  for (int i = 0; i < cut.count; ++i) {
    const Term& t = cut.terms[i];
    if (!t.packed_x) continue;
    pack_x(cut, t, panel, thread_scratch(job, thread) + cut.w_bytes,
           job.x + (static_cast<size_t>(panel - first_panel) * cut.x_row_bytes + t.x_offset) * mr);
  }
}

// Panels p0..p1 times one tile of columns, all of K.
void run_tile(const Job& job, int64_t first_panel, int64_t p0, int64_t p1, int64_t tile,
              int thread) {
  const Cut& cut = job.cut;
  const int64_t nr = inner().nr, units = ceil_div(cut.n, cut.granule);
  const int64_t c0 = units * tile / cut.tiles * cut.granule;
  const int64_t cols = std::min(cut.n, units * (tile + 1) / cut.tiles * cut.granule) - c0;
  if (cols <= 0) return;
  std::uint8_t* packed = thread_scratch(job, thread);
  std::uint8_t* linear = packed + cut.w_bytes;
  auto* sums = reinterpret_cast<float*>(linear + cut.linear_bytes);
  Segment segments[kMaxGemmTerms];
  int term = 0;
  int64_t k = 0;
  for (bool start = true; term < cut.count; start = false) {
    const int count = next_block(cut, term, k, segments);
    size_t offset = 0;
    for (int i = 0; i < count; ++i) {
      const Term& t = cut.terms[segments[i].term];
      pack_w(t, segments[i], c0, cols, linear, packed + offset);
      offset +=
          step_bytes(t) * static_cast<size_t>(segments[i].steps * round_up(cut.tile_cols, nr));
    }
    run_block(job, segments, count, first_panel, p0, p1, c0, cols, packed, sums, start,
              term == cut.count);
  }
}

void run_tiles(const Job& job) {
  const Cut& cut = job.cut;
  for (int64_t first = 0; first < cut.panels; first += cut.panels_per_block) {
    const int64_t panels = std::min(cut.panels_per_block, cut.panels - first);
    if (cut.x_row_bytes > 0)
      job.pool.ranges(panels, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t p = first + begin; p < first + end; ++p) pack_x_panel(job, first, p, thread);
      });
    job.pool.items(cut.tiles * cut.row_parts, [&](int64_t item, int thread) {
      const int64_t row_part = item % cut.row_parts;
      run_tile(job, first, first + panels * row_part / cut.row_parts,
               first + panels * (row_part + 1) / cut.row_parts, item / cut.row_parts, thread);
    });
  }
}

// ---- few rows
// ---------------------------------------------------------------------------------------------------------

// One thread's columns. Float activations are widened into the thread's part of the workspace
// first.
void run_vector(const Job& job, int64_t n0, int64_t n1, float* x) {
  const Cut& cut = job.cut;
  const int m = static_cast<int>(cut.m);
  std::array<const float*, kMaxGemmTerms> floats = {};
  std::array<std::array<Int8Row, kVectorRows>, kMaxGemmTerms> rows;
  for (int i = 0; i < cut.count; ++i) {
    const Term& t = cut.terms[i];
    if (t.prepared && t.affine.supported) {
      for (int r = 0; r < m; ++r) rows[i][r] = prepared_row(t.prepared, t.k, r);
      continue;
    }
    const int64_t ld = round_up(t.k, 16);
    for (int r = 0; r < m; ++r) {
      if (t.prepared)
        widen_prepared(t.prepared, m, t.k, r, 0, t.k, x + r * ld);
      else
        inner().to_f32(t.x, r * t.x.ld, t.k, x + r * ld);
    }
    floats[i] = x;
    x += round_up(static_cast<size_t>(m * ld) * 4, kLine) / 4;
  }
  constexpr int kStrip = 32;
  const size_t element = size_of(job.problem.y_dtype);
  for (int64_t n = n0; n < n1; n += kStrip) {
    const int count = static_cast<int>(std::min<int64_t>(kStrip, n1 - n));
    float sums[kStrip * kVectorRows] = {};
    for (int i = 0; i < cut.count; ++i) {
      const Term& t = cut.terms[i];
      if (floats[i])
        inner().gemv_f32(t.w, n, count, floats[i], round_up(t.k, 16), m, sums);
      else
        inner().gemv_int8(t.w, n, count, rows[i].data(), m, sums);
    }
    float turned[kVectorRows * kStrip];
    for (int r = 0; r < m; ++r)
      for (int c = 0; c < count; ++c) turned[r * kStrip + c] = sums[c * kVectorRows + r];
    inner().store(turned, kStrip, m, count, job.problem.alpha, job.problem.accumulate, job.y_type,
                  static_cast<std::uint8_t*>(job.problem.y) + static_cast<size_t>(n) * element,
                  job.problem.ldy);
  }
}

void clear(const GemmProblem& p) {
  if (p.accumulate) return;
  const size_t element = size_of(p.y_dtype);
  for (int64_t r = 0; r < p.m; ++r) {
    auto* row = static_cast<std::uint8_t*>(p.y) + static_cast<size_t>(r * p.ldy) * element;
    std::fill(row, row + static_cast<size_t>(p.n) * element, std::uint8_t{0});
  }
}

}  // namespace

size_t gemm_workspace(const GemmProblem& problem, int threads) {
  return make_cut(problem, threads).total;
}

void gemm(Pool& pool, const GemmProblem& problem, void* workspace) {
  const Cut cut = make_cut(problem, pool.threads());
  if (problem.m == 0 || problem.n == 0) return;
  if (cut.count == 0) return clear(problem);
  auto* base = align_up(static_cast<std::uint8_t*>(workspace), kLine);
  MatrixRef y;
  y.dtype = problem.y_dtype;
  const Job job{problem, cut, pool, base, base + cut.x_bytes, codec_of(y)};
  if (cut.vector_path) {
    const size_t floats = (cut.total - kLine) / static_cast<size_t>(pool.threads()) / 4;
    return pool.ranges(cut.n, 32, [&](int64_t n0, int64_t n1, int thread) {
      run_vector(job, n0, n1,
                 reinterpret_cast<float*>(base) + floats * static_cast<size_t>(thread));
    });
  }
  run_tiles(job);
}

}  // namespace supersonic::cpu
