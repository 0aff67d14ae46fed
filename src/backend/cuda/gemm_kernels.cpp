// The matrix product as the planner sees it: operations Gemm and GemmAccumulate on kernels/gemm.h,
// and the bf16 form of float operands, made once for all products that read them.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/panel.h"
#include "ops/gemm.h"

namespace supersonic::cuda {
namespace {

static_assert(kMaxGemmTerms == supersonic::kMaxGemmTerms);

struct Call {
  GemmTerm terms[kMaxGemmTerms];
  GemmProblem problem;
};

// first: index of the first operand pair (1 when input 0 is the target). ptr may be null: shapes
// alone.
void fill_call(Call& c, const Problem& p, int first, const Gemm& a, const Pointers* ptr) {
  const int count = (static_cast<int>(p.in.size()) - first) / 2;
  auto matrix = [&](int i) {
    const Operand& o = p.in[i];
    MatrixRef m;
    m.codec = o.form ? Codec::bf16 : codec_of(o.spec.dtype, o.spec.format);
    m.rows = o.spec.shape[0];
    m.cols = o.spec.shape[1];
    if (ptr && o.spec.format)
      m.planes = *ptr->planes[i];
    else if (ptr)
      m.planes.data[0] = ptr->in[i];
    return m;
  };
  for (int t = 0; t < count; ++t)
    c.terms[t] = {matrix(first + 2 * t), (a.trans_x >> t & 1) != 0, matrix(first + 2 * t + 1),
                  (a.trans_w >> t & 1) != 0};
  const Spec& y = first ? p.in[0].spec : p.out[0].spec;
  c.problem.m = y.shape[0];
  c.problem.n = y.shape[1];
  c.problem.terms = {c.terms, static_cast<std::size_t>(count)};
  c.problem.y_type = y.dtype;
  c.problem.ldy = y.shape[1];
  c.problem.compute = p.compute;
  c.problem.alpha = a.alpha;
  if (ptr) c.problem.y = first ? ptr->in[0] : ptr->out[0];
  c.problem.accumulate = first == 1;
}

bool plain_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

const char* reject_gemm(const Problem& p, int first) {
  const Spec& y = first ? p.in[0].spec : p.out[0].spec;
  if (!plain_float(y.dtype)) return "the result must be f32, bf16 or f16";
  for (std::size_t i = first; i < p.in.size(); ++i) {
    const bool weight = (static_cast<int>(i) - first) % 2 == 1;
    const Spec& s = p.in[i].spec;
    if (s.format ? !weight || codec_of(s.dtype, s.format) == Codec::none : !plain_float(s.dtype))
      return "operands must be f32, bf16, f16 or, weights, of a format with a decoder here";
    if (s.shape[0] >= INT32_MAX || s.shape[1] >= INT32_MAX) return "a dimension exceeds 2^31";
    if (s.numel() == 0) return "an empty operand";
  }
  if (y.numel() == 0) return "empty result";
  return nullptr;
}

const Form kBf16{"bf16", [](const Spec& s) { return static_cast<std::size_t>(s.numel()) * 2; },
                 [](const Operand& o, const void* data, void* out, Lane& lane) {
                   PanelCall d;
                   d.codec = codec_of(o.spec.dtype, nullptr);
                   d.planes.data[0] = data;
                   d.rows = 1;
                   d.cols = d.width = o.spec.numel();
                   d.out = out;
                   decode_panel(d, stream_of(lane));
                 }};

// Floats that the tensor cores will multiply become bf16 for all their readers at once; but those
// beside quantized weights, an adapter's, together with these, in the workspace.
const Form* gemm_form(const Problem& p, int input, int first, const Gemm& a) {
  if (input < first || p.in[input].spec.format || p.in[input].spec.dtype == DType::bf16)
    return nullptr;
  if ((input - first) % 2 == 1)
    for (std::size_t i = first + 1; i < p.in.size(); i += 2)
      if (p.in[i].spec.format) return nullptr;
  Call c;
  fill_call(c, p, first, a, nullptr);
  return gemm_in_bf16(c.problem) ? &kBf16 : nullptr;
}

template <int first>
const Gemm& attributes(const Problem& p) {
  if constexpr (first == 1)
    return p.attr<GemmAccumulate>().gemm;
  else
    return p.attr<Gemm>();
}

template <int first>
Kernel gemm_kernel(const Op* op, const char* name) {
  return {.op = op,
          .name = name,
          .reject = [](const Problem& p) { return reject_gemm(p, first); },
          .workspace =
              [](const Problem& p) {
                Call c;
                fill_call(c, p, first, attributes<first>(p), nullptr);
                return gemm_workspace(c.problem);
              },
          .form = [](const Problem& p,
                     int input) { return gemm_form(p, input, first, attributes<first>(p)); },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                Call c;
                fill_call(c, p, first, attributes<first>(p), &ptr);
                gemm(c.problem, ptr.workspace, stream_of(lane));
              }};
}

}  // namespace

KERNEL(gemm) { return gemm_kernel<0>(&op<Gemm>(), "cuda.gemm"); }
KERNEL(gemm_accumulate) { return gemm_kernel<1>(&op<GemmAccumulate>(), "cuda.gemm_accumulate"); }

}  // namespace supersonic::cuda
