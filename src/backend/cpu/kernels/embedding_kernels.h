// Embedding rows for one instruction set. Gather is bound by the table's bytes and the store.
// Scatter-add gives each thread a range of columns, so that rows are added in the order of ids
// without locks.
#pragma once
#include "backend/cpu/kernels/embedding.h"
#include "backend/cpu/simd.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

template <class From, class To>
inline void copy_row(const From* from, To* to, std::int64_t d) {
  if constexpr (std::is_same_v<From, To>)
    std::memcpy(to, from, static_cast<std::size_t>(d) * sizeof(To));
  else
    for_each_vec(d, [&](auto i, auto n) { store(to + i, load(from + i, n), n); });
}

template <class From, class To>
void gather_rows(Pool& pool, const EmbeddingGather& a) {
  pool.ranges(a.n, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i)
      copy_row(static_cast<const From*>(a.table) + a.ids[i] * a.d,
               static_cast<To*>(a.out) + i * a.d, a.d);
  });
}

template <class To>
void gather_decoded(Pool& pool, const EmbeddingGather& a) {
  pool.ranges(a.n, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* scratch = static_cast<float*>(a.workspace) + thread * (a.d + a.format->block);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = a.ids[i] * a.d, skip = first % a.format->block;
      a.format->decode(a.planes, first - skip, a.d + skip, scratch);
      copy_row(scratch + skip, static_cast<To*>(a.out) + i * a.d, a.d);
    }
  });
}

template <class To>
void gather_to(Pool& pool, const EmbeddingGather& a) {
  if (a.format) return gather_decoded<To>(pool, a);
  switch (a.table_type) {
    case DType::bf16:
      return gather_rows<bf16, To>(pool, a);
    case DType::f16:
      return gather_rows<f16, To>(pool, a);
    default:
      return gather_rows<float, To>(pool, a);
  }
}

inline void embedding_gather(Pool& pool, const EmbeddingGather& a) {
  check(a);
  a.out_type == DType::bf16 ? gather_to<bf16>(pool, a) : gather_to<float>(pool, a);
}

template <class T>
void scatter_rows(Pool& pool, const EmbeddingScatter& a) {
  pool.ranges(a.d, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = 0; i < a.n; ++i) {
      const T* dy = static_cast<const T*>(a.dy) + i * a.d + begin;
      float* to = a.dtable + a.ids[i] * a.d + begin;
      for_each_vec(end - begin,
                   [&](auto j, auto n) { store(to + j, load(to + j, n) + load(dy + j, n), n); });
    }
  });
}

inline void embedding_scatter_add(Pool& pool, const EmbeddingScatter& a) {
  check(a);
  a.type == DType::bf16 ? scatter_rows<bf16>(pool, a) : scatter_rows<float>(pool, a);
}

const EmbeddingKernels& embedding_kernels() {
  static constexpr EmbeddingKernels table{embedding_gather, embedding_scatter_add};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
