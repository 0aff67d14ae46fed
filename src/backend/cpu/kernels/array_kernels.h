// Plain work on arrays for one instruction set.
#pragma once
#include <type_traits>

#include "backend/cpu/kernels/array.h"
#include "backend/cpu/simd_math.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

constexpr std::int64_t kArrayGrain = 4096;  // elements: a part is worth a thread

template <class From, class To>
void cast_array(Pool& pool, const void* from, void* to, std::int64_t n) {
  pool.ranges(n, kArrayGrain, [&](std::int64_t begin, std::int64_t end, int) {
    const From* x = static_cast<const From*>(from) + begin;
    To* y = static_cast<To*>(to) + begin;
    if constexpr (std::is_same_v<From, To>)
      std::memcpy(y, x, static_cast<std::size_t>(end - begin) * sizeof(To));
    else
      for_each_vec(end - begin,
                   [&](auto i, auto lanes) { store(y + i, load(x + i, lanes), lanes); });
  });
}
template <class From>
void cast_from(Pool& pool, const void* from, void* to, DType to_type, std::int64_t n) {
  switch (to_type) {
    case DType::bf16:
      return cast_array<From, bf16>(pool, from, to, n);
    case DType::f16:
      return cast_array<From, f16>(pool, from, to, n);
    default:
      return cast_array<From, float>(pool, from, to, n);
  }
}
inline void cast(Pool& pool, const void* from, DType from_type, void* to, DType to_type,
                 std::int64_t n) {
  switch (from_type) {
    case DType::bf16:
      return cast_from<bf16>(pool, from, to, to_type, n);
    case DType::f16:
      return cast_from<f16>(pool, from, to, to_type, n);
    default:
      return cast_from<float>(pool, from, to, to_type, n);
  }
}

template <class T>
void fill_array(Pool& pool, void* to, float value, std::int64_t n) {
  pool.ranges(n, kArrayGrain, [&](std::int64_t begin, std::int64_t end, int) {
    T* y = static_cast<T*>(to) + begin;
    for_each_vec(end - begin, [&](auto i, auto lanes) { store(y + i, set(value), lanes); });
  });
}
inline void fill(Pool& pool, void* to, DType type, float value, std::int64_t n) {
  switch (type) {
    case DType::bf16:
      return fill_array<bf16>(pool, to, value, n);
    case DType::f16:
      return fill_array<f16>(pool, to, value, n);
    default:
      return fill_array<float>(pool, to, value, n);
  }
}

inline void copy_2d(Pool& pool, const Copy2D& a) {
  const std::int64_t e = static_cast<std::int64_t>(a.element);
  pool.ranges(a.rows, a.cols > 0 ? (kArrayGrain + a.cols - 1) / a.cols : 1,
              [&](std::int64_t begin, std::int64_t end, int) {
                for (std::int64_t r = begin; r < end; ++r)
                  std::memcpy(static_cast<char*>(a.to) + r * a.to_stride * e,
                              static_cast<const char*>(a.from) + r * a.from_stride * e,
                              static_cast<std::size_t>(a.cols * e));
              });
}

// Tiles of 16 x 16 elements: whole cache lines on both sides for four-byte elements.
template <class T>
void transpose_tiles(Pool& pool, const Copy2D& a) {
  constexpr std::int64_t tile = 16;
  const T* from = static_cast<const T*>(a.from);
  T* to = static_cast<T*>(a.to);
  pool.ranges(a.cols, tile, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t c0 = begin; c0 < end; c0 += tile)
      for (std::int64_t r0 = 0; r0 < a.rows; r0 += tile) {
        const std::int64_t c1 = c0 + tile < end ? c0 + tile : end,
                           r1 = r0 + tile < a.rows ? r0 + tile : a.rows;
        for (std::int64_t c = c0; c < c1; ++c)
          for (std::int64_t r = r0; r < r1; ++r)
            to[c * a.to_stride + r] = from[r * a.from_stride + c];
      }
  });
}
inline void transpose_2d(Pool& pool, const Copy2D& a) {
  switch (a.element) {
    case 1:
      return transpose_tiles<std::uint8_t>(pool, a);
    case 2:
      return transpose_tiles<std::uint16_t>(pool, a);
    case 8:
      return transpose_tiles<std::uint64_t>(pool, a);
    default:
      return transpose_tiles<std::uint32_t>(pool, a);
  }
}

template <class T>
void sum_rows(Pool& pool, const RowReduction& a, float* out) {
  pool.ranges(a.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.stride;
      Vec sums[4] = {};
      std::int64_t i = 0;
      for (; i + 4 * kLanes <= a.n; i += 4 * kLanes)
        for (int u = 0; u < 4; ++u) sums[u] += load(x + i + u * kLanes);
      for_each_vec(a.n - i, [&](auto j, auto lanes) { sums[0] += load(x + i + j, lanes); });
      out[row] = reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
  });
}
template <class T>
void max_rows(Pool& pool, const RowReduction& a, float* out) {
  pool.ranges(a.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.stride;
      Vec top = set(-kInfinity);
      for_each_vec(a.n, [&](auto i, auto lanes) {
        top = max(top, select(first_lanes(lanes), load(x + i, lanes), set(-kInfinity)));
      });
      out[row] = reduce_max(top);
    }
  });
}
inline void row_sum(Pool& pool, const RowReduction& a, float* out) {
  a.type == DType::bf16 ? sum_rows<bf16>(pool, a, out) : sum_rows<float>(pool, a, out);
}
inline void row_max(Pool& pool, const RowReduction& a, float* out) {
  a.type == DType::bf16 ? max_rows<bf16>(pool, a, out) : max_rows<float>(pool, a, out);
}

template <Vec (*fn)(Vec)>
void map_array(Pool& pool, const float* x, float* y, std::int64_t n) {
  pool.ranges(n, kArrayGrain, [&](std::int64_t begin, std::int64_t end, int) {
    for_each_vec(end - begin, [&](auto i, auto lanes) {
      store(y + begin + i, fn(load(x + begin + i, lanes)), lanes);
    });
  });
}
inline void map(Pool& pool, MathFn f, const float* x, float* y, std::int64_t n) {
  using Apply = void (*)(Pool&, const float*, float*, std::int64_t);
  static constexpr Apply table[] = {map_array<exp>,   map_array<exp2>,    map_array<log>,
                                    map_array<log1p>, map_array<sin>,     map_array<cos>,
                                    map_array<tanh>,  map_array<sigmoid>, map_array<erf>,
                                    map_array<sqrt>,  map_array<rsqrt>};
  table[static_cast<int>(f)](pool, x, y, n);
}

const ArrayKernels& array_kernels() {
  static constexpr ArrayKernels table{cast, fill, copy_2d, transpose_2d, row_sum, row_max, map};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
