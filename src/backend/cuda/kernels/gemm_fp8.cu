// The driver of products with E4M3: which terms become codes, how columns are cut so that a pass's
// codes stay small, and what lies where in the workspace.
#include <algorithm>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/fp8.h"

namespace supersonic::cuda {
namespace {

constexpr std::int64_t kPanelBytes = 64 << 20;  // codes of the weights of one pass
constexpr std::int64_t kAdapterRank = 256;      // an adapter's, at most
constexpr std::int64_t kColumnStep = 256;       // columns of a pass are a multiple of this
constexpr std::int64_t kLeast = 128;            // rows and columns of Y: a tile's

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
constexpr std::int64_t padded(std::int64_t k) {
  return (k + kFp8Group - 1) / kFp8Group * kFp8Group;
}

std::int64_t inner(const GemmTerm& t) { return t.x.cols; }

// Rows of 16-byte multiples, at such an address.
bool in_place(const MatrixRef& m) {
  return m.codec == Codec::bf16 && m.cols % 8 == 0 && m.ld == 0 &&
         reinterpret_cast<std::uintptr_t>(m.planes.data[0]) % 16 == 0;
}
std::int64_t copied_ld(const MatrixRef& m) { return (m.cols + 7) / 8 * 8; }

struct Cut {
  std::int64_t columns;  // of one pass
  // Offsets in the workspace: codes and scales of W, X as rows of codes where it is not yet, or
  // copies of both operands in bf16.
  std::size_t codes_at[kMaxGemmTerms], scales_at[kMaxGemmTerms], x_at[kMaxGemmTerms],
      w_at[kMaxGemmTerms], total;
};

// All columns, or as many passes of nearly equal width as panels ask for.
std::int64_t columns_of_pass(const GemmProblem& p) {
  std::int64_t per_column = 0;
  for (const GemmTerm& t : p.terms)
    if (becomes_codes(t)) per_column += padded(inner(t));
  const std::int64_t most =
      std::max(kPanelBytes / per_column / kColumnStep * kColumnStep, kColumnStep);
  const std::int64_t passes = ceil_div(p.n, most);
  return passes == 1 ? p.n : ceil_div(ceil_div(p.n, passes), kColumnStep) * kColumnStep;
}

Cut make_cut(const GemmProblem& p) {
  Cut c{};
  c.columns = columns_of_pass(p);
  auto take = [&](std::int64_t bytes) {
    const std::size_t here = c.total;
    c.total += aligned(static_cast<std::size_t>(bytes));
    return here;
  };
  for (std::size_t i = 0; i < p.terms.size(); ++i) {
    const GemmTerm& t = p.terms[i];
    if (becomes_codes(t)) {
      const std::int64_t k = padded(inner(t));
      c.codes_at[i] = take(c.columns * k);
      c.scales_at[i] = take(ceil_div(c.columns, kFp8Across) * (k / kFp8Group) * kFp8WScale * 4);
      if (t.x.codec != Codec::none)
        c.x_at[i] = take(static_cast<std::int64_t>(Fp8Rows{t.x.rows, t.x.cols}.bytes()));
    } else {
      c.x_at[i] = take(t.x.rows * copied_ld(t.x) * 2);
      c.w_at[i] = take(t.w.rows * copied_ld(t.w) * 2);
    }
  }
  return c;
}

struct Copies {
  Converted of[2 * kMaxGemmTerms];
  std::size_t count = 0;
};

// The operand as the tiles read it: in place, or a copy that will be made.
const void* bf16_operand(const MatrixRef& m, void* copy, std::int64_t& ld, Copies& copies) {
  ld = m.cols;
  if (in_place(m)) return static_cast<const char*>(m.planes.data[0]) + m.first_row * m.cols * 2;
  ld = copied_ld(m);
  copies.of[copies.count++] = {m, copy, ld};
  return copy;
}

Fp8Term make_term(const GemmTerm& g, const Cut& c, std::size_t i, char* base, Copies& copies) {
  Fp8Term t;
  t.k = static_cast<int>(inner(g));
  t.codes = becomes_codes(g);
  if (t.codes) {
    const Fp8Rows rows{g.x.rows, g.x.cols};
    t.x = g.x.codec == Codec::none ? g.x.planes.data[0] : base + c.x_at[i];
    t.ldx = rows.ld();
    t.x_scales = reinterpret_cast<const float*>(static_cast<const char*>(t.x) + rows.scales_at());
    t.x_scales_ld = rows.scales_ld();
    t.w = base + c.codes_at[i], t.ldw = rows.ld();
    t.w_scales = reinterpret_cast<const float*>(base + c.scales_at[i]);
  } else {
    t.trans_w = g.trans_w;
    t.x = bf16_operand(g.x, base + c.x_at[i], t.ldx, copies);
    t.w = bf16_operand(g.w, base + c.w_at[i], t.ldw, copies);
  }
  return t;
}

}  // namespace

bool becomes_codes(const GemmTerm& t) { return t.w.codec != Codec::f32; }

const char* gemm_fp8_rejects(const GemmProblem& p) {
  if (p.compute != Compute::fp8) return "computes what --compute fp8 asks for alone";
  if (device_limits().capability != 90) return "needs wgmma, which sm_90 alone has";
  if (p.y_type != DType::bf16 || p.accumulate) return "the result must be bf16, and new";
  if (p.m < kLeast || p.n < kLeast) return "less than a tile";
  bool any = false;
  for (const GemmTerm& t : p.terms) {
    if (t.trans_x) return "x must not be transposed";
    any |= becomes_codes(t);
    if (!becomes_codes(t) && inner(t) > kAdapterRank) return "a weight in f32";
    if (quantized(t.w.codec) && t.w.cols % 8 != 0) return "a weight with odd rows";
  }
  return any ? nullptr : "no frozen weight: an adapter's products are bf16";
}

std::size_t gemm_fp8_workspace(const GemmProblem& p) { return make_cut(p).total; }

void gemm_fp8(const GemmProblem& p, void* workspace, cudaStream_t stream) {
  const Cut c = make_cut(p);
  auto* base = static_cast<char*>(workspace);
  Copies copies;
  Fp8Tiles tiles;
  tiles.m = static_cast<int>(p.m);
  tiles.count = static_cast<int>(p.terms.size());
  tiles.ldy = p.ldy, tiles.alpha = p.alpha;
  for (std::size_t i = 0; i < p.terms.size(); ++i) {
    const MatrixRef& x = p.terms[i].x;
    tiles.terms[i] = make_term(p.terms[i], c, i, base, copies);
    if (tiles.terms[i].codes && x.codec != Codec::none)
      quantize_rows(x.planes.data[0], float_type(x.codec), {x.rows, x.cols}, base + c.x_at[i],
                    stream);
  }
  for (std::int64_t n0 = 0; n0 < p.n; n0 += c.columns) {
    const std::int64_t columns = std::min(c.columns, p.n - n0);
    Fp8Tiles pass = tiles;
    pass.n = static_cast<int>(columns);
    pass.y = static_cast<char*>(p.y) + n0 * 2;
    for (std::size_t i = 0; i < p.terms.size(); ++i) {
      const GemmTerm& g = p.terms[i];
      Fp8Term& t = pass.terms[i];
      if (!t.codes) {
        t.w = static_cast<const char*>(t.w) + n0 * (t.trans_w ? 1 : t.ldw) * 2;
        continue;
      }
      Fp8Blocks b{g.w, g.trans_w};
      (g.trans_w ? b.rows : b.width) = t.k;
      (g.trans_w ? b.col : b.row) = n0;
      (g.trans_w ? b.width : b.rows) = columns;
      b.codes = reinterpret_cast<std::uint8_t*>(base + c.codes_at[i]);
      b.scales = reinterpret_cast<float*>(base + c.scales_at[i]);
      decode_blocks(b, {copies.of, copies.count}, stream);
      copies.count = 0;
    }
    tiles_fp8(pass, stream);
  }
}

}  // namespace supersonic::cuda
