// Products one side of which is thin, as the planner sees them: Gemm and GemmAccumulate on
// kernels/thin.h, before the general kernels. They read the thin operand as it is, floats too, so
// that nothing is prepared for them.
#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/device.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/thin.h"
#include "ops/gemm.h"

namespace supersonic::cuda {
namespace {

enum class Side { none, rows, sums };  // what is thin: Y's rows; both operands' rows, which are K

struct Thin {
  const Problem& p;
  int first;  // index of the operands: 1 when input 0 is the target
  const Gemm& a;

  const Spec& x() const { return p.in[first].spec; }
  const Spec& w() const { return p.in[first + 1].spec; }
  const Spec& y() const { return first ? p.in[0].spec : p.out[0].spec; }

  Side side() const {
    const bool tall_x = a.trans_x & 1, tall_w = a.trans_w & 1;
    const std::int64_t m = y().shape[0], n = y().shape[1];
    if (x().dtype != DType::bf16 || w().format) return Side::none;
    if (!tall_x && n <= kThinRows && (w().dtype == DType::f32 || w().dtype == DType::bf16)) {
      // Few rows meet their weights in fp32, as they do where Y is not thin.
      return m <= kVectorRows && !tall_w && a.alpha == 1 ? Side::none : Side::rows;
    }
    return tall_x && tall_w && w().dtype == DType::bf16 && std::min(m, n) <= kThinSums ? Side::sums
                                                                                       : Side::none;
  }

  const char* reject() const {
    if (p.compute == Compute::fp32) return "rounds operands to bf16";
    if (device_limits().capability != 90) return "needs Hopper's clusters and shared memory";
    if (p.in.size() != static_cast<std::size_t>(first) + 2) return "takes one term";
    const DType type = y().dtype;
    if (type != DType::f32 && type != DType::bf16 && type != DType::f16)
      return "the result must be f32, bf16 or f16";
    for (const Spec* s : {&x(), &w(), &y()}) {
      if (s->numel() == 0) return "an empty operand or result";
      if (s->shape[0] >= kMost || s->shape[1] >= kMost) return "a dimension exceeds 2^30";
    }
    return side() == Side::none ? "no side is thin, or its operands have other types" : nullptr;
  }

  void launch(const Pointers& ptr, cudaStream_t stream) const {
    const int m = static_cast<int>(y().shape[0]), n = static_cast<int>(y().shape[1]);
    const void *left = ptr.in[first], *right = ptr.in[first + 1];
    const ThinResult result{first ? ptr.in[0] : ptr.out[0], n, y().dtype, first == 1, a.alpha};
    if (side() == Side::rows) {
      const bool tall_w = a.trans_w & 1;
      const auto k = static_cast<int>(x().shape[1]);
      return thin_rows(
          {left, right, k, tall_w ? n : k, m, n, k, tall_w, w().dtype, 0, false, result}, stream);
    }
    const auto k = static_cast<int>(x().shape[0]);
    m <= n ? thin_sums({left, right, m, n, m, n, k, false, 0, result}, stream)
           : thin_sums({right, left, n, m, n, m, k, true, 0, result}, stream);
  }

  static constexpr std::int64_t kMost = 1 << 30;
};

template <int first>
Thin thin(const Problem& p) {
  if constexpr (first == 1)
    return {p, 1, p.attr<GemmAccumulate>().gemm};
  else
    return {p, 0, p.attr<Gemm>()};
}

template <int first>
Kernel thin_kernel(const Op* op, const char* name) {
  return {.op = op,
          .name = name,
          .reject = [](const Problem& p) { return thin<first>(p).reject(); },
          .launch = [](const Problem& p, const Pointers& ptr,
                       Lane& lane) { thin<first>(p).launch(ptr, stream_of(lane)); },
          .priority = 1};
}

}  // namespace

KERNEL(thin_gemm) { return thin_kernel<0>(&op<Gemm>(), "cuda.thin_gemm"); }
KERNEL(thin_gemm_accumulate) {
  return thin_kernel<1>(&op<GemmAccumulate>(), "cuda.thin_gemm_accumulate");
}

}  // namespace supersonic::cuda
