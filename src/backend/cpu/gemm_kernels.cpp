// The matrix product as the planner sees it: operations Gemm and GemmAccumulate on kernels/gemm.h, and the forms of their
// activations (int8 rows, bf16 panels), made once for all products that read the same rows.
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/gemm.h"
#include "ops/gemm.h"

namespace supersonic {
namespace {

using cpu::pool_of;

bool plain_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

const Form kInt8Rows{
    "int8_rows",
    [](const Spec& s) { return cpu::int8_rows_bytes(s.shape[0], s.shape[1]); },
    [](const Operand& o, const void* data, void* out, Lane& lane) {
      cpu::quantize_int8_rows(pool_of(lane), data, o.spec.dtype, o.spec.shape[0], o.spec.shape[1], o.spec.shape[1], out);
    }};

const Form kBf16Panels{
    "bf16_panels",
    [](const Spec& s) { return cpu::bf16_panels_bytes(s.shape[0], s.shape[1]); },
    [](const Operand& o, const void* data, void* out, Lane& lane) {
      cpu::pack_bf16_panels(pool_of(lane), data, o.spec.dtype, o.spec.shape[0], o.spec.shape[1], o.spec.shape[1], out);
    }};

// Another backend may present the same form as its own: the name tells.
bool is(const Form* form, const Form& which) { return form && form->name == which.name; }

struct Call {
  cpu::GemmTerm terms[supersonic::kMaxGemmTerms];
  cpu::GemmProblem problem;
};

// first: index of the first operand pair (1 when input 0 is the target). ptr may be null: shapes alone.
void fill_call(Call& c, const Problem& p, int first, const Gemm& a, const Pointers* ptr) {
  const int count = (static_cast<int>(p.in.size()) - first) / 2;
  auto matrix = [&](int i) {
    const Operand& o = p.in[i];
    cpu::MatrixRef m;
    m.rows = o.spec.shape[0];
    m.cols = o.spec.shape[1];
    m.ld = m.cols;
    m.panels = is(o.form, kBf16Panels);
    m.dtype = is(o.form, kInt8Rows) ? DType::i8 : m.panels ? DType::bf16 : o.spec.dtype;
    m.format = o.spec.format;
    if (ptr) {
      m.data = ptr->in[i];
      if (m.format) m.planes = *ptr->planes[i];
    }
    return m;
  };
  for (int t = 0; t < count; ++t)
    c.terms[t] = {matrix(first + 2 * t), (a.trans_x >> t & 1) != 0, matrix(first + 2 * t + 1), (a.trans_w >> t & 1) != 0};
  const Spec& y = first ? p.in[0].spec : p.out[0].spec;
  c.problem.m = y.shape[0];
  c.problem.n = y.shape[1];
  c.problem.terms = {c.terms, static_cast<std::size_t>(count)};
  c.problem.y_dtype = y.dtype;
  c.problem.ldy = y.shape[1];
  c.problem.compute = p.compute;
  c.problem.alpha = a.alpha;
  if (ptr) c.problem.y = first ? ptr->in[0] : ptr->out[0];
  c.problem.accumulate = first == 1;
}

const char* reject_gemm(const Problem& p, int first) {
  const Spec& y = first ? p.in[0].spec : p.out[0].spec;
  if (!plain_float(y.dtype)) return "the result must be f32, bf16 or f16";
  for (std::size_t i = first; i < p.in.size(); ++i) {
    const bool weight = (static_cast<int>(i) - first) % 2 == 1;
    if (!plain_float(p.in[i].spec.dtype) && !(weight && p.in[i].spec.format)) return "operands must be f32, bf16, f16 or, weights, quantized";
  }
  if (y.numel() == 0) return "empty result";
  return nullptr;
}

constexpr std::int64_t kFewRows = 8;

// bf16 products of many rows read their activations from panels. In int8, activations become int8 where they meet a quantized
// weight in its own orientation. Sensitive products do so for a few rows only: a decoded token is bound by reading the weights,
// which the int8 loops do a third faster.
const Form* gemm_form(const Problem& p, int input) {
  if (input % 2 != 0) return nullptr;
  const int t = input / 2;
  const auto& a = p.attr<Gemm>();
  const bool few = p.in[input].spec.shape[0] <= kFewRows;
  if (a.trans_x >> t & 1) return nullptr;
  if (p.compute == Compute::bf16) return !few && cpu::packs_bf16() ? &kBf16Panels : nullptr;
  if (p.compute != Compute::int8 || (a.trans_w >> t & 1) || !p.in[input + 1].spec.format) return nullptr;
  return (a.sensitive >> t & 1) && !few ? nullptr : &kInt8Rows;
}

}  // namespace

KERNEL(gemm) {
  return {.op = &op<Gemm>(),
          .name = "cpu.gemm",
          .reject = [](const Problem& p) { return reject_gemm(p, 0); },
          .workspace = [](const Problem& p) {
            Call c;
            fill_call(c, p, 0, p.attr<Gemm>(), nullptr);
            return cpu::gemm_workspace(c.problem, p.threads);
          },
          .form = gemm_form,
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            Call c;
            fill_call(c, p, 0, p.attr<Gemm>(), &ptr);
            cpu::gemm(pool_of(lane), c.problem, ptr.workspace);
          }};
}

KERNEL(gemm_accumulate) {
  return {.op = &op<GemmAccumulate>(),
          .name = "cpu.gemm_accumulate",
          .reject = [](const Problem& p) { return reject_gemm(p, 1); },
          .workspace = [](const Problem& p) {
            Call c;
            fill_call(c, p, 1, p.attr<GemmAccumulate>().gemm, nullptr);
            return cpu::gemm_workspace(c.problem, p.threads);
          },
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            Call c;
            fill_call(c, p, 1, p.attr<GemmAccumulate>().gemm, &ptr);
            cpu::gemm(pool_of(lane), c.problem, ptr.workspace);
          }};
}

}  // namespace supersonic
