// The driver of the products: which kernel takes a problem, what is decoded into the workspace
// first, how columns are cut so that decoded panels stay small (and, on large caches, in the
// cache), and into how many parts a long sum is split.
#include "backend/cuda/kernels/gemm.h"

#include <algorithm>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/panel.h"
#include "backend/cuda/kernels/tiles.h"

namespace supersonic::cuda {
namespace {

constexpr std::size_t kPanelBytes = 64 << 20;    // decoded weights of one pass over the columns
constexpr std::size_t kPartialBytes = 64 << 20;  // partial sums
constexpr std::int64_t kAdapterRank = 256;       // an adapter's, at most
constexpr std::int64_t kColumnStep = 256;        // columns of a pass are a multiple of this
constexpr double kPassSteps = 800;               // of K, in whose time a pass begins and ends
constexpr int kStepsPerSplit = 4;                // a part of a sum is at least so long

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

struct Cut {
  bool tensor_cores;
  std::int64_t columns;  // of one pass
  bool copy_x[kMaxGemmTerms], copy_w[kMaxGemmTerms];
  std::size_t x_at[kMaxGemmTerms], w_at[kMaxGemmTerms];  // offsets in the workspace
  int steps, splits;
  std::size_t partial_at, total;
};

bool few_rows(const GemmProblem& p) { return !p.decay && vector_product_takes(p); }

bool uses_tensor_cores(const GemmProblem& p) {
  return p.compute != Compute::fp32 && device_limits().capability >= 80;
}

// The tensor cores want bf16; the SIMT loop reads any float.
bool copied(const MatrixRef& m, bool tensor_cores) {
  return tensor_cores ? m.codec != Codec::bf16 : quantized(m.codec);
}

std::int64_t inner(const GemmTerm& t) { return t.trans_x ? t.x.rows : t.x.cols; }

// Hopper's products of warpgroups pay off for whole tiles of theirs; their operands must be
// aligned, too, which launch sees.
bool for_warpgroups(const GemmProblem& p, std::int64_t columns) {
  return device_limits().capability == 90 && p.m > 64 && columns > 64;
}

// The time of passes over `columns` of n columns each, the last one over the rest: whole waves of
// tiles, and what a pass costs beside them.
double time_of_passes(const GemmProblem& p, std::int64_t depth, std::int64_t columns) {
  const double beside = kPassSteps / static_cast<double>(depth);
  const auto pass = [&](std::int64_t n) { return n > 0 ? wgmma_waves(p.m, n) + beside : 0.0; };
  return static_cast<double>(p.n / columns) * pass(columns) + pass(p.n % columns);
}

// As many columns of `most` as make the fewest waves.
std::int64_t fitting_columns(const GemmProblem& p, bool tensor_cores, std::int64_t most) {
  if (!tensor_cores || !for_warpgroups(p, most)) return most;
  std::int64_t depth = 0, best = most;
  for (const GemmTerm& t : p.terms) depth += inner(t);
  for (std::int64_t c = most - kColumnStep; c > 0; c -= kColumnStep)
    if (time_of_passes(p, depth, c) < time_of_passes(p, depth, best)) best = c;
  return best;
}

// Columns of one pass: all, unless the decoded weights would be larger than a panel, for which an
// adapter's matrices do not count. A part of an NF4 matrix begins at a whole byte only where rows
// are whole bytes.
std::int64_t columns_of_pass(const GemmProblem& p, bool tensor_cores) {
  std::int64_t per_column = 0;
  for (const GemmTerm& t : p.terms) {
    if (!copied(t.w, tensor_cores) || (!quantized(t.w.codec) && inner(t) <= kAdapterRank)) continue;
    if (quantized(t.w.codec) && t.w.cols % 8) return p.n;
    per_column += inner(t) * (tensor_cores ? 2 : 4);
  }
  if (per_column * p.n <= static_cast<std::int64_t>(kPanelBytes)) return p.n;
  const std::int64_t columns =
      static_cast<std::int64_t>(kPanelBytes) / per_column / kColumnStep * kColumnStep;
  return std::min(p.n, fitting_columns(p, tensor_cores, std::max(columns, kColumnStep)));
}

// Parts of the sum: as many as fill the device, none shorter than kStepsPerSplit, and enough for
// p.longest_sum.
int splits_of(const GemmProblem& p, const Cut& c) {
  const TileShape tile = !c.tensor_cores                ? tile_shape_f32()
                         : for_warpgroups(p, c.columns) ? tile_shape_wgmma(p.m, c.columns)
                                                        : tile_shape_bf16(p.m, c.columns);
  const std::int64_t tiles = ceil_div(p.m, tile.m) * ceil_div(c.columns, tile.n);
  const int blocks = for_warpgroups(p, c.columns) && c.tensor_cores ? 1
                     : tile.m == 64                                 ? 3
                                    : 1;  // at once on a multiprocessor
  std::int64_t splits = std::max<std::int64_t>(1, blocks * device_limits().multiprocessors / tiles);
  splits = std::min<std::int64_t>(splits, std::max(1, c.steps / kStepsPerSplit));
  splits = std::min<std::int64_t>(
      splits,
      std::max<std::int64_t>(1, static_cast<std::int64_t>(kPartialBytes) / (p.m * c.columns * 4)));
  if (p.longest_sum > 0)
    splits = std::max(splits, ceil_div(static_cast<std::int64_t>(c.steps) * kStepK, p.longest_sum));
  return static_cast<int>(std::min<std::int64_t>(splits, std::max(1, c.steps)));
}

Cut make_cut(const GemmProblem& p) {
  Cut c{};
  c.tensor_cores = uses_tensor_cores(p);
  c.columns = columns_of_pass(p, c.tensor_cores);
  const std::size_t element = c.tensor_cores ? 2 : 4;
  std::size_t at = 0;
  auto take = [&](std::size_t bytes) {
    const std::size_t here = at;
    at += aligned(bytes);
    return here;
  };
  for (std::size_t i = 0; i < p.terms.size(); ++i) {
    const GemmTerm& t = p.terms[i];
    c.copy_x[i] = copied(t.x, c.tensor_cores);
    c.copy_w[i] = copied(t.w, c.tensor_cores);
    if (c.copy_x[i]) c.x_at[i] = take(static_cast<std::size_t>(t.x.rows * t.x.cols) * element);
    if (c.copy_w[i]) c.w_at[i] = take(static_cast<std::size_t>(inner(t) * c.columns) * element);
    c.steps += static_cast<int>(ceil_div(inner(t), kStepK));
  }
  c.splits = splits_of(p, c);
  if (c.splits > 1)
    c.partial_at =
        take(static_cast<std::size_t>(c.splits) * static_cast<std::size_t>(p.m * c.columns) * 4);
  c.total = at;
  return c;
}

struct Dense {
  const void* data;
  std::int64_t ld;
  DType type;
};

// What is to be decoded before a pass.
struct Panels {
  PanelCall calls[2 * kMaxGemmTerms];
  std::size_t count = 0;
};

// The rectangle of a stored matrix as the tiles read it: in place, or decoded to `panel`.
Dense dense_part(const GemmProblem& p, const MatrixRef& m, bool copy, bool tensor_cores,
                 std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t width,
                 void* panel, Panels& panels) {
  row += m.first_row;
  if (!copy) {
    const DType type = float_type(m.codec);
    const std::int64_t ld = m.ld ? m.ld : m.cols;
    return {static_cast<const char*>(m.planes.data[0]) +
                (row * ld + col) * static_cast<std::int64_t>(size_of(type)),
            ld, type};
  }
  PanelCall& d = panels.calls[panels.count++];
  d.codec = m.codec;
  d.planes = m.planes;
  d.cols = m.ld ? m.ld : m.cols;
  d.row = row, d.rows = rows, d.col = col, d.width = width;
  d.out = panel;
  d.out_type = tensor_cores ? DType::bf16 : DType::f32;
  d.live = p.live, d.live_from = p.live_from;
  return {panel, width, d.out_type};
}

bool aligned16(const Dense& d) {
  const std::int64_t element = static_cast<std::int64_t>(size_of(d.type));
  return reinterpret_cast<std::uintptr_t>(d.data) % 16 == 0 && d.ld * element % 16 == 0;
}

void multiply(const GemmProblem& p, const Cut& c, const TileProblem& t, cudaStream_t stream) {
  if (!c.tensor_cores) return tiles_f32(t, stream);
  const bool aligned = std::all_of(t.terms, t.terms + t.count, [](const TileTerm& term) {
    return term.aligned_x && term.aligned_w;
  });
  for_warpgroups(p, c.columns) && aligned ? tiles_wgmma(t, stream) : tiles_bf16(t, stream);
}

}  // namespace

bool gemm_in_bf16(const GemmProblem& p) { return !few_rows(p) && uses_tensor_cores(p); }

std::size_t gemm_workspace(const GemmProblem& p) {
  if (few_rows(p)) return 0;
  return make_cut(p).total;
}

void gemm(const GemmProblem& p, void* workspace, cudaStream_t stream) {
  if (p.m == 0 || p.n == 0) return;
  if (few_rows(p)) return vector_product(p, stream);
  const Cut c = make_cut(p);
  auto* base = static_cast<char*>(workspace);
  Dense x[kMaxGemmTerms];
  Panels panels;
  for (std::size_t i = 0; i < p.terms.size(); ++i) {
    const MatrixRef& m = p.terms[i].x;
    x[i] = dense_part(p, m, c.copy_x[i], c.tensor_cores, 0, m.rows, 0, m.cols, base + c.x_at[i],
                      panels);
  }
  for (std::int64_t n0 = 0; n0 < p.n; n0 += c.columns) {
    const std::int64_t columns = std::min(c.columns, p.n - n0);
    TileProblem t;
    t.m = static_cast<int>(p.m), t.n = static_cast<int>(columns);
    t.count = static_cast<int>(p.terms.size());
    t.steps = c.steps, t.splits = c.splits;
    t.partial = reinterpret_cast<float*>(base + c.partial_at);
    t.y = static_cast<char*>(p.y) + n0 * static_cast<std::int64_t>(size_of(p.y_type));
    t.live = p.live, t.live_from = p.live_from;
    t.ldy = p.ldy, t.y_type = p.y_type, t.accumulate = p.accumulate;
    t.alpha = p.alpha, t.decay = p.decay;
    for (int i = 0; i < t.count; ++i) {
      const GemmTerm& g = p.terms[i];
      const std::int64_t k = inner(g);
      const Dense w = g.trans_w ? dense_part(p, g.w, c.copy_w[i], c.tensor_cores, 0, k, n0, columns,
                                             base + c.w_at[i], panels)
                                : dense_part(p, g.w, c.copy_w[i], c.tensor_cores, n0, columns, 0, k,
                                             base + c.w_at[i], panels);
      t.terms[i] = {x[i].data,           w.data,          x[i].ld,     w.ld,
                    static_cast<int>(k), x[i].type,       w.type,      g.trans_x,
                    g.trans_w,           aligned16(x[i]), aligned16(w)};
    }
    decode_panels({panels.calls, panels.count}, stream);
    panels.count = 0;
    multiply(p, c, t, stream);
    if (t.splits > 1) add_splits(t, stream);
  }
}

}  // namespace supersonic::cuda
