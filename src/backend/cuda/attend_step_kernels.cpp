// A decoded token's attention as the planner sees it: operation AttendStep on
// kernels/attend_step.h.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/attend_step.h"
#include "backend/cuda/kernels/device.h"
#include "ops/attend_step.h"

namespace supersonic::cuda {
namespace {

const char* reject_attend_step(const Problem& p) {
  constexpr std::int64_t kMostHeadSize = 128, kMostHeads = 65535;
  const Spec &cache = p.in[0].spec, &q = p.in[2].spec;
  if (device_limits().capability < 90) return "there are no clusters before sm_90";
  if (q.shape[0] != 1) return "one token alone";
  if (p.attr<AttendStep>().context > kMostAttendKeys)
    return "long contexts take more blocks than a cluster has";
  if (q.shape[2] % 8 || q.shape[2] > kMostHeadSize)
    return "the head size must be a multiple of 8, at most 128";
  if (q.shape[1] > kMostHeads) return "too many heads for one launch";
  if (q.dtype != DType::f32 && q.dtype != DType::bf16) return "q, k and v must be f32 or bf16";
  if (p.in[3].spec.dtype != q.dtype || p.in[4].spec.dtype != q.dtype)
    return "q, k and v must have one type";
  if (cache.format || p.in[1].spec.format || p.in[1].spec.dtype != cache.dtype ||
      (cache.dtype != DType::bf16 && cache.dtype != DType::f16))
    return "caches must be bf16 or f16";
  return p.in[6].spec.dtype == DType::f32 ? nullptr : "inv_freq must be f32";
}

void run_attend_step(const Problem& p, const Pointers& ptr, Lane& lane) {
  const auto& attr = p.attr<AttendStep>();
  const Shape &q = p.in[2].spec.shape, &k = p.in[3].spec.shape;
  auto ints = [&](int i) { return static_cast<const std::int32_t*>(ptr.in[i]); };
  AttendStepCall a{};
  a.k_cache = ptr.in[0], a.v_cache = ptr.in[1];
  a.q = ptr.in[2], a.k = ptr.in[3], a.v = ptr.in[4], a.o = ptr.out[0];
  a.inv_freq = static_cast<const float*>(ptr.in[6]);
  a.position = ints(5), a.at = ints(7), a.lo = ints(8), a.hi = ints(9);
  a.capacity = p.in[0].spec.shape[0], a.context = static_cast<int>(attr.context);
  a.heads = static_cast<int>(q[1]), a.groups = static_cast<int>(k[1]), a.d = static_cast<int>(q[2]);
  a.pairs = static_cast<int>(p.in[6].spec.shape[0]);
  a.factor = attr.turn.magnitude, a.scale = attr.softmax_scale,
  a.interleaved = attr.turn.interleaved != 0;
  a.type = p.in[2].spec.dtype, a.cache_type = p.in[0].spec.dtype;
  attend_step(a, faults_of(lane), stream_of(lane));
}

}  // namespace

KERNEL(attend_step) {
  return {.op = &op<AttendStep>(),
          .name = "cuda.attend_step",
          .reject = reject_attend_step,
          .launch = run_attend_step,
          .always = 1};
}

}  // namespace supersonic::cuda
