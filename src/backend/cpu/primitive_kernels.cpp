// Kernels of the primitive operations: fill, iota, pad, reductions, batched products, dequantize, writes to storages. They take
// every scalar type, fp64 included, since definitions and finite differences are made of them; sums accumulate in fp64.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/scalar_access.h"
#include "ops/accumulate.h"
#include "ops/batch_matmul.h"
#include "ops/dequantize.h"
#include "ops/fill.h"
#include "ops/pad.h"
#include "ops/reduce.h"

namespace supersonic {

using cpu::load_as_double;
using cpu::pool_of;
using cpu::store_from_double;

KERNEL(fill) {
  return {.op = &op<Fill>(), .name = "cpu.fill", .launch = [](const Problem& p, const Pointers& ptr, Lane&) {
    const double value = p.attr<Fill>().value;
    const Spec& s = p.out[0].spec;
    if (value == 0) return void(std::memset(ptr.out[0], 0, bytes_of(s)));
    for (std::int64_t i = 0; i < s.numel(); ++i) store_from_double(ptr.out[0], s.dtype, i, value);
  }};
}

KERNEL(iota) {
  return {.op = &op<Iota>(), .name = "cpu.iota", .launch = [](const Problem& p, const Pointers& ptr, Lane&) {
    const Spec& s = p.out[0].spec;
    for (std::int64_t i = 0; i < s.numel(); ++i) store_from_double(ptr.out[0], s.dtype, i, static_cast<double>(i));
  }};
}

KERNEL(pad) {
  return {.op = &op<Pad>(), .name = "cpu.pad", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    const auto a = p.attr<Pad>();
    const Shape& in = p.in[0].spec.shape;
    const int axis = static_cast<int>(a.axis);
    std::int64_t outer = 1, inner = static_cast<std::int64_t>(size_of(p.in[0].spec.dtype));
    for (int d = 0; d < axis; ++d) outer *= in[d];
    for (int d = axis + 1; d < in.rank; ++d) inner *= in[d];
    const std::int64_t copied = in[axis] * inner, total = (a.before + in[axis] + a.after) * inner;
    const auto* x = static_cast<const std::byte*>(ptr.in[0]);
    auto* y = static_cast<std::byte*>(ptr.out[0]);
    pool_of(lane).ranges(outer, 64, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t o = begin; o < end; ++o) {
        std::memset(y + o * total, 0, a.before * inner);
        std::memcpy(y + o * total + a.before * inner, x + o * copied, copied);
        std::memset(y + o * total + a.before * inner + copied, 0, a.after * inner);
      }
    });
  }};
}

namespace {

template <class Step>
void reduce(const Problem& p, const Pointers& ptr, Lane& lane, std::int64_t axis, double start, Step step) {
  const Shape& in = p.in[0].spec.shape;
  std::int64_t outer = 1, inner = 1;
  const std::int64_t n = in[static_cast<int>(axis)];
  for (int d = 0; d < axis; ++d) outer *= in[d];
  for (int d = static_cast<int>(axis) + 1; d < in.rank; ++d) inner *= in[d];
  const DType from = p.in[0].spec.dtype, to = p.out[0].spec.dtype;
  pool_of(lane).ranges(outer * inner, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t u = begin; u < end; ++u) {
      const std::int64_t base = u / inner * n * inner + u % inner;
      double total = start;
      for (std::int64_t k = 0; k < n; ++k) total = step(total, load_as_double(ptr.in[0], from, base + k * inner));
      store_from_double(ptr.out[0], to, u, total);
    }
  });
}

}  // namespace

KERNEL(sum) {
  return {.op = &op<Sum>(), .name = "cpu.sum", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    reduce(p, ptr, lane, p.attr<Sum>().axis, 0.0, [](double a, double b) { return a + b; });
  }};
}

KERNEL(max) {
  return {.op = &op<Max>(), .name = "cpu.max", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    reduce(p, ptr, lane, p.attr<Max>().axis, -INFINITY, [](double a, double b) { return b > a ? b : a; });
  }};
}

KERNEL(batch_matmul) {
  return {.op = &op<BatchMatmul>(), .name = "cpu.batch_matmul", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    const Operand &a = p.in[0], &b = p.in[1];
    const Shape& out = p.out[0].spec.shape;
    const int r = out.rank;
    const std::int64_t m = out[-2], n = out[-1], k = a.spec.shape[-1];
    const DType ta = a.spec.dtype, tb = b.spec.dtype, to = p.out[0].spec.dtype;
    pool_of(lane).ranges(out.numel() / std::max<std::int64_t>(n, 1), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t u = begin; u < end; ++u) {
        std::int64_t rest = u / m, at_a = u % m * a.strides[r - 2], at_b = 0;
        for (int d = r - 3; d >= 0; --d) {
          at_a += rest % out[d] * a.strides[d];
          at_b += rest % out[d] * b.strides[d];
          rest /= out[d];
        }
        for (std::int64_t j = 0; j < n; ++j) {
          double total = 0;
          for (std::int64_t i = 0; i < k; ++i)
            total += load_as_double(ptr.in[0], ta, at_a + i * a.strides[r - 1]) *
                     load_as_double(ptr.in[1], tb, at_b + i * b.strides[r - 2] + j * b.strides[r - 1]);
          store_from_double(ptr.out[0], to, u * n + j, total);
        }
      }
    });
  }, .strided = true};
}

KERNEL(dequantize) {
  return {.op = &op<Dequantize>(), .name = "cpu.dequantize", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    const Format& f = *p.in[0].spec.format;
    const std::int64_t n = p.in[0].spec.numel();
    const std::int64_t run = 1024 / f.block * f.block;
    const DType to = p.out[0].spec.dtype;
    pool_of(lane).ranges((n + run - 1) / run, 1, [&](std::int64_t begin, std::int64_t end, int) {
      float values[1024];
      for (std::int64_t u = begin; u < end; ++u) {
        const std::int64_t first = u * run, count = std::min(run, n - first);
        f.decode(*ptr.planes[0], first, count, values);
        for (std::int64_t i = 0; i < count; ++i) store_from_double(ptr.out[0], to, first + i, values[i]);
      }
    });
  }};
}

KERNEL(accumulate) {
  return {.op = &op<Accumulate>(), .name = "cpu.accumulate", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    const DType to = p.in[0].spec.dtype, from = p.in[1].spec.dtype;
    pool_of(lane).ranges(p.in[0].spec.numel(), 4096, [&](std::int64_t begin, std::int64_t end, int) {
      if (to == DType::f32 && from == DType::f32) {
        auto* t = static_cast<float*>(ptr.in[0]);
        const auto* x = static_cast<const float*>(ptr.in[1]);
        for (std::int64_t i = begin; i < end; ++i) t[i] += x[i];
        return;
      }
      for (std::int64_t i = begin; i < end; ++i)
        store_from_double(ptr.in[0], to, i, load_as_double(ptr.in[0], to, i) + load_as_double(ptr.in[1], from, i));
    });
  }};
}

KERNEL(clear) {
  return {.op = &op<Clear>(), .name = "cpu.clear", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    pool_of(lane).ranges(static_cast<std::int64_t>(bytes_of(p.in[0].spec)), 1 << 16, [&](std::int64_t begin, std::int64_t end, int) {
      std::memset(static_cast<std::byte*>(ptr.in[0]) + begin, 0, static_cast<std::size_t>(end - begin));
    });
  }};
}

KERNEL(assign) {
  return {.op = &op<Assign>(), .name = "cpu.assign", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
    const DType to = p.in[0].spec.dtype, from = p.in[1].spec.dtype;
    if (to == from) return void(std::memcpy(ptr.in[0], ptr.in[1], bytes_of(p.in[0].spec)));
    pool_of(lane).ranges(p.in[0].spec.numel(), 4096, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) store_from_double(ptr.in[0], to, i, load_as_double(ptr.in[1], from, i));
    });
  }};
}

}  // namespace supersonic
