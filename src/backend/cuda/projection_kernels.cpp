// The products of a decoded token as the planner sees them: operation Projection on
// kernels/row_products.h. Matrices of one format go in one launch, and those of two where there is
// a kernel for both.
#include <algorithm>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/device.h"
#include "backend/cuda/kernels/row_products.h"
#include "ops/projection.h"

namespace supersonic::cuda {
namespace {

static_assert(static_cast<int>(RowGate::silu) == Projection::silu &&
              static_cast<int>(RowGate::gelu_tanh) == Projection::gelu_tanh);

Codec codec_of_input(const Problem& p, int i) {
  return codec_of(p.in[i].spec.dtype, p.in[i].spec.format);
}

const char* reject_projection(const Problem& p) {
  const auto& a = p.attr<Projection>();
  const Spec& x = p.in[0].spec;
  if (x.dtype != DType::bf16) return "x must be bf16";
  if (a.normed && p.in[1].spec.dtype != DType::f32 && p.in[1].spec.dtype != DType::bf16)
    return "the norm's weight must be f32 or bf16";
  for (int i = 0; i < a.matrices; ++i) {
    const Spec& w = p.in[a.first_matrix() + i].spec;
    if (!w.format ||
        !row_products_take(codec_of_input(p, a.first_matrix() + i), x.shape[0], x.shape[1], true))
      return "up to eight rows and weights of a format with fragments";
    if (w.shape[0] >= INT32_MAX) return "a dimension exceeds 2^31";
    if (p.compute == Compute::fp32 && w.format->name.starts_with("nf4"))
      return "the table's values would be rounded to bf16";
  }
  if (a.gate != Projection::none &&
      codec_of_input(p, a.first_matrix()) != codec_of_input(p, a.first_matrix() + 1))
    return "gate and operand must have one format";
  return nullptr;
}

RowProblem problem_without_matrices(const Problem& p, const Pointers& ptr) {
  const auto& a = p.attr<Projection>();
  const Spec& x = p.in[0].spec;
  RowProblem r{};
  r.m = static_cast<int>(x.shape[0]), r.k = static_cast<int>(x.shape[1]);
  auto aligned = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; };
  r.x = ptr.in[0], r.ldx = x.shape[1], r.fast_x = aligned(r.x);
  r.y_type = p.out[0].spec.dtype;
  r.gate = static_cast<RowGate>(a.gate);
  if (a.normed) r.norm = ptr.in[1], r.norm_type = p.in[1].spec.dtype;
  r.fast_norm = aligned(r.norm);
  r.eps = a.eps;
  if (a.added) r.addend = ptr.in[a.first_matrix() + 1];
  return r;
}

// A matrix whose result is read.
struct Wanted {
  Codec codec;
  RowMatrix matrix;
};

void run_projection(const Problem& p, const Pointers& ptr, Lane& lane) {
  const auto& a = p.attr<Projection>();
  std::vector<Wanted> wanted;
  for (int j = 0; j < a.matrices; ++j) {
    const int in = a.first_matrix() + j, n = static_cast<int>(p.in[in].spec.shape[0]);
    void* y = ptr.out[a.gate == Projection::none ? j : 0];
    const Codec codec = codec_of_input(p, in);
    if (y) wanted.push_back({codec, row_matrix(*ptr.planes[in], codec, y, n, n)});
  }
  // Those of the first one's format come first.
  auto group = [&](auto from) {
    return std::stable_partition(
        from, wanted.end(), [codec = from->codec](const Wanted& w) { return w.codec == codec; });
  };
  for (auto from = wanted.begin(), to = from; from != wanted.end(); from = to) {
    to = group(from);
    RowProblem r = problem_without_matrices(p, ptr);
    for (auto w = from; w != to; ++w) r.matrix[r.count++] = w->matrix;
    if (to != wanted.end() && group(to) == wanted.end()) {
      RowProblem both = r;
      both.second = r.count;
      for (auto w = to; w != wanted.end(); ++w) both.matrix[both.count++] = w->matrix;
      if (row_products_of_two(both, from->codec, to->codec, stream_of(lane))) return;
    }
    row_products(r, from->codec, stream_of(lane));
  }
}

}  // namespace

KERNEL(projection) {
  return {.op = &op<Projection>(),
          .name = "cuda.projection",
          .reject = reject_projection,
          .launch = run_projection};
}

}  // namespace supersonic::cuda
