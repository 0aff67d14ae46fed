// The primitive operations as the planner sees them: fill, iota, pad, reductions, batched products,
// writes to storages.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/cache_rows.h"
#include "backend/cuda/kernels/primitive.h"
#include "ops/accumulate.h"
#include "ops/batch_matmul.h"
#include "ops/fill.h"
#include "ops/kv_append.h"
#include "ops/pad.h"
#include "ops/reduce.h"

namespace supersonic::cuda {
namespace {

Array array(void* data, const Operand& o) { return {data, o.spec.dtype}; }

struct Split {  // a shape around one axis
  std::int64_t outer = 1, n = 1, inner = 1;
};
Split split(const Shape& shape, std::int64_t axis) {
  Split s;
  for (int d = 0; d < shape.rank; ++d) (d < axis ? s.outer : d == axis ? s.n : s.inner) *= shape[d];
  return s;
}

void launch_reduction(const Problem& p, const Pointers& ptr, Lane& lane, std::int64_t axis,
                      bool max) {
  const Split s = split(p.in[0].spec.shape, axis);
  reduce({array(ptr.in[0], p.in[0]), array(ptr.out[0], p.out[0]), s.outer, s.n, s.inner, max},
         stream_of(lane));
}

}  // namespace

KERNEL(fill) {
  return {.op = &op<Fill>(),
          .name = "cuda.fill",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            fill(array(ptr.out[0], p.out[0]), p.out[0].spec.numel(), p.attr<Fill>().value,
                 stream_of(lane));
          }};
}

KERNEL(iota) {
  return {.op = &op<Iota>(),
          .name = "cuda.iota",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            iota(array(ptr.out[0], p.out[0]), p.out[0].spec.numel(), stream_of(lane));
          }};
}

KERNEL(pad) {
  return {.op = &op<Pad>(),
          .name = "cuda.pad",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const auto& a = p.attr<Pad>();
            const Split s = split(p.in[0].spec.shape, a.axis);
            pad({ptr.in[0], ptr.out[0], s.outer, s.n, s.inner, a.before, a.after},
                size_of(p.in[0].spec.dtype), stream_of(lane));
          }};
}

KERNEL(sum) {
  return {.op = &op<Sum>(),
          .name = "cuda.sum",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            launch_reduction(p, ptr, lane, p.attr<Sum>().axis, false);
          }};
}

KERNEL(max) {
  return {.op = &op<Max>(),
          .name = "cuda.max",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            launch_reduction(p, ptr, lane, p.attr<Max>().axis, true);
          }};
}

KERNEL(batch_matmul) {
  return {.op = &op<BatchMatmul>(),
          .name = "cuda.batch_matmul",
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                static_assert(BatchProduct::kMostLeading == kMaxRank - 2);
                const Operand &a = p.in[0], &b = p.in[1];
                const Shape& out = p.out[0].spec.shape;
                const int r = out.rank;
                BatchProduct t;
                t.a = array(ptr.in[0], a);
                t.b = array(ptr.in[1], b);
                t.out = array(ptr.out[0], p.out[0]);
                t.m = out[-2];
                t.n = out[-1];
                t.k = a.spec.shape[-1];
                t.a_row = a.strides[r - 2];
                t.a_col = a.strides[r - 1];
                t.b_row = b.strides[r - 2];
                t.b_col = b.strides[r - 1];
                t.leading = r - 2;
                for (int d = 0; d < t.leading; ++d) {
                  t.batch *= t.dims[d] = out[d];
                  t.a_strides[d] = a.strides[d];
                  t.b_strides[d] = b.strides[d];
                }
                batch_matmul(t, stream_of(lane));
              },
          .strided = true};
}

KERNEL(clear) {
  return {.op = &op<Clear>(),
          .name = "cuda.clear",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            fill(array(ptr.in[0], p.in[0]), p.in[0].spec.numel(), 0.0, stream_of(lane));
          }};
}

KERNEL(accumulate) {
  return {.op = &op<Accumulate>(),
          .name = "cuda.accumulate",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            accumulate(array(ptr.in[0], p.in[0]), array(ptr.in[1], p.in[1]), p.in[0].spec.numel(),
                       stream_of(lane));
          }};
}

KERNEL(assign) {
  return {.op = &op<Assign>(),
          .name = "cuda.assign",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            assign(array(ptr.in[0], p.in[0]), array(ptr.in[1], p.in[1]), p.in[0].spec.numel(),
                   stream_of(lane));
          }};
}

KERNEL(kv_append) {
  return {.op = &op<KvAppend>(),
          .name = "cuda.kv_append",
          .reject = [](const Problem& p) -> const char* {
            const Spec& cache = p.in[0].spec;
            return cache.format && cache_codes(cache.format, cache.shape[-1]) == CacheCodes::none
                       ? "a cache holds numbers, fp8, or q8_0 with heads of whole blocks"
                       : nullptr;
          },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                const Shape &cache = p.in[0].spec.shape, &x = p.in[1].spec.shape;
                const CacheAppend a{array(ptr.in[0], p.in[0]),
                                    array(ptr.in[1], p.in[1]),
                                    static_cast<const std::int32_t*>(ptr.in[2]),
                                    x[0],
                                    cache[1] * cache[2],
                                    cache[0]};
                const CacheCodes codes = cache_codes(p.in[0].spec.format, cache[2]);
                codes == CacheCodes::none
                    ? append_rows(a, faults_of(lane), stream_of(lane))
                    : append_coded_rows(a, codes, faults_of(lane), stream_of(lane));
              }};
}

}  // namespace supersonic::cuda
