// The gradient of experts' matrices (an adapter's): one transposed product for each expert that got
// rows, of at most kChunk rows at a time, which are summed in the result: the workspace must be
// known before it is known how many rows an expert gets. Bound by the products; an expert without
// rows costs nothing but, where the result is not added to, its zeros.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/gemm.h"
#include "core/error.h"
#include "ops/mixture.h"

namespace supersonic {
namespace {

constexpr std::int64_t kChunk = 512;

// One expert's product over m rows. first: dy's place among the operands.
struct GradCall {
  cpu::GemmTerm term;
  cpu::GemmProblem problem;
};

void fill_call(GradCall& c, const Problem& p, int first, const Spec& result, std::int64_t m,
               const void* dy, const void* x, void* y) {
  const auto stored = [m](const Spec& s, const void* data) {
    cpu::MatrixRef r;
    r.data = data, r.dtype = s.dtype;
    r.rows = m, r.cols = r.ld = s.shape[1];
    return r;
  };
  const Spec &left = p.in[static_cast<std::size_t>(first)].spec,
             &right = p.in[static_cast<std::size_t>(first) + 1].spec;
  c.term = {stored(left, dy), true, stored(right, x), true};
  c.problem = {};
  c.problem.m = left.shape[1];
  c.problem.n = c.problem.ldy = right.shape[1];
  c.problem.terms = {&c.term, 1};
  c.problem.y = y;
  c.problem.y_dtype = result.dtype;
  c.problem.compute = p.compute;
}

const char* reject(const Problem& p, int first, const Spec& result) {
  for (const int i : {first, first + 1})
    if (const DType t = p.in[static_cast<std::size_t>(i)].spec.dtype;
        t != DType::f32 && t != DType::bf16)
      return "dy and x must be f32 or bf16";
  if (result.dtype != DType::f32 && result.dtype != DType::bf16)
    return "the gradient must be f32 or bf16";
  return nullptr;
}

std::size_t workspace(const Problem& p, int first, const Spec& result) {
  std::size_t bytes = 0;
  const std::int64_t n = p.in[static_cast<std::size_t>(first)].spec.shape[0];
  for (std::int64_t m = 1; m <= std::min(kChunk, n); ++m) {
    GradCall c;
    fill_call(c, p, first, result, m, nullptr, nullptr, nullptr);
    bytes = std::max(bytes, cpu::gemm_workspace(c.problem, p.threads));
  }
  return bytes;
}

// added: result already holds what the products are added to.
void add_products(const Problem& p, const Pointers& ptr, Lane& lane, int first, const Spec& result,
                  void* to, bool added) {
  const Spec &dy = p.in[static_cast<std::size_t>(first)].spec,
             &x = p.in[static_cast<std::size_t>(first) + 1].spec;
  const auto at = [](const void* data, const Spec& s, std::int64_t row) {
    return static_cast<const std::byte*>(data) +
           static_cast<std::size_t>(row * s.shape[1]) * size_of(s.dtype);
  };
  const std::int64_t experts = p.in[static_cast<std::size_t>(first) + 2].spec.shape[0] - 1;
  const auto* begin = static_cast<const std::int32_t*>(ptr.in[first + 2]);
  CHECK(begin[0] == 0 && begin[experts] == dy.shape[0],
        "grouped_linear_grad: the groups end at row {} of {}", begin[experts], dy.shape[0]);
  const std::size_t bytes = bytes_of(result) / static_cast<std::size_t>(experts);
  for (std::int64_t e = 0; e < experts; ++e) {
    CHECK(begin[e] <= begin[e + 1], "grouped_linear_grad: group {} begins behind its end", e);
    std::byte* const matrix = static_cast<std::byte*>(to) + static_cast<std::size_t>(e) * bytes;
    if (begin[e] == begin[e + 1] && !added) std::memset(matrix, 0, bytes);
    for (std::int64_t row = begin[e]; row < begin[e + 1]; row += kChunk) {
      GradCall c;
      fill_call(c, p, first, result, std::min<std::int64_t>(kChunk, begin[e + 1] - row),
                at(ptr.in[first], dy, row), at(ptr.in[first + 1], x, row), matrix);
      c.problem.accumulate = added || row > begin[e];
      cpu::gemm(cpu::pool_of(lane), c.problem, ptr.workspace);
    }
  }
}

}  // namespace

KERNEL(grouped_linear_grad) {
  return {.op = &op<GroupedLinearGrad>(),
          .name = "cpu.grouped_linear_grad",
          .reject = [](const Problem& p) { return reject(p, 0, p.out[0].spec); },
          .workspace = [](const Problem& p) { return workspace(p, 0, p.out[0].spec); },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                add_products(p, ptr, lane, 0, p.out[0].spec, ptr.out[0], false);
              }};
}

KERNEL(grouped_linear_grad_accumulate) {
  return {
      .op = &op<GroupedLinearGradAccumulate>(),
      .name = "cpu.grouped_linear_grad_accumulate",
      .reject = [](const Problem& p) { return reject(p, 1, p.in[0].spec); },
      .workspace = [](const Problem& p) { return workspace(p, 1, p.in[0].spec); },
      .launch = [](const Problem& p, const Pointers& ptr,
                   Lane& lane) { add_products(p, ptr, lane, 1, p.in[0].spec, ptr.in[0], true); }};
}

}  // namespace supersonic
