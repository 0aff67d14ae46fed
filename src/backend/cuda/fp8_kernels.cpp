// Products of frozen weights in E4M3 as the planner sees them: Gemm on kernels/fp8.h, before the
// general kernels, and the rows of codes that activations and gradients become once for all
// products that read them.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/fp8.h"
#include "ops/gemm.h"

namespace supersonic::cuda {
namespace {

struct Call {
  GemmTerm terms[kMaxGemmTerms];
  GemmProblem problem;
};

bool plain_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

// ptr may be null: shapes alone.
void fill_call(Call& c, const Problem& p, const Pointers* ptr) {
  const Gemm& a = p.attr<Gemm>();
  auto matrix = [&](std::size_t i) {
    const Spec& s = p.in[i].spec;
    MatrixRef m;
    m.codec = p.in[i].form ? Codec::none : codec_of(s.dtype, s.format);
    m.rows = s.shape[0], m.cols = s.shape[1];
    if (ptr && s.format)
      m.planes = *ptr->planes[i];
    else if (ptr)
      m.planes.data[0] = ptr->in[i];
    return m;
  };
  const std::size_t count = p.in.size() / 2;
  for (std::size_t t = 0; t < count; ++t)
    c.terms[t] = {matrix(2 * t), (a.trans_x >> t & 1) != 0, matrix(2 * t + 1),
                  (a.trans_w >> t & 1) != 0};
  const Spec& y = p.out[0].spec;
  c.problem.m = y.shape[0], c.problem.n = y.shape[1];
  c.problem.terms = {c.terms, count};
  c.problem.y_type = y.dtype, c.problem.ldy = y.shape[1];
  c.problem.compute = p.compute, c.problem.alpha = a.alpha;
  if (ptr) c.problem.y = ptr->out[0];
}

const char* reject(const Problem& p) {
  constexpr std::int64_t kMost = 1 << 30;
  if (p.out[0].spec.numel() == 0) return "an empty result";
  for (std::size_t i = 0; i < p.in.size(); ++i) {
    const Spec& s = p.in[i].spec;
    if (s.format ? i % 2 == 0 || codec_of(s.dtype, s.format) == Codec::none : !plain_float(s.dtype))
      return "operands must be f32, bf16, f16 or, weights, of a format with a decoder here";
    if (s.shape[0] >= kMost || s.shape[1] >= kMost) return "a dimension exceeds 2^30";
    if (s.numel() == 0) return "an empty operand";
  }
  Call c;
  fill_call(c, p, nullptr);
  return gemm_fp8_rejects(c.problem);
}

const Form kCodes{
    "fp8",
    [](const Spec& s) {
      return Fp8Rows{s.shape[0], s.shape[1]}.bytes();
    },
    [](const Operand& o, const void* data, void* out, Lane& lane) {
      quantize_rows(data, o.spec.dtype, {o.spec.shape[0], o.spec.shape[1]}, out, stream_of(lane));
    }};

const Form* form(const Problem& p, int input) {
  if (input % 2 == 1) return nullptr;
  Call c;
  fill_call(c, p, nullptr);
  return becomes_codes(c.terms[input / 2]) ? &kCodes : nullptr;
}

}  // namespace

KERNEL(fp8_gemm) {
  return {.op = &op<Gemm>(),
          .name = "cuda.fp8_gemm",
          .reject = reject,
          .workspace =
              [](const Problem& p) {
                Call c;
                fill_call(c, p, nullptr);
                return gemm_fp8_workspace(c.problem);
              },
          .form = form,
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                Call c;
                fill_call(c, p, &ptr);
                gemm_fp8(c.problem, ptr.workspace, stream_of(lane));
              },
          .priority = 1};
}

}  // namespace supersonic::cuda
