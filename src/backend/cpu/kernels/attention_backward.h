// Attention backward for one instruction set. One item is a run of column blocks of one kv head,
// with its own fp32 sums of dk and dv; dq of a block is finished within it. Per block pair five
// products: scores and dp (keys x columns), then dq += k^T ds, dv += p do, dk += ds q. Sums of the
// parts are added in order at the end, so nothing depends on timing.
#pragma once
#include "backend/cpu/kernels/attention_forward.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

// The keys that a part touches; written by the part, read when the sums are added up.
struct PartRange {
  std::int64_t begin, end;
};

template <bool pairs, class T>
struct BackwardItem {
  static constexpr std::int64_t kStep = pairs ? 2 : 1;
  static constexpr std::int64_t kColumnWords = kColumnBlock / kStep, kKeyWords = kKeyBlock / kStep;
  const AttentionBackward& a;
  const AttentionBackwardLayout& layout;
  std::int64_t d, words, ld_d;  // ld_d: of arrays whose columns run along d
  std::int64_t kv_head = 0, first = 0, count = 0, padded = 0;
  float *q_right, *do_right, *dq, *q_rows, *do_rows, *k_left, *v_left, *k_transposed, *scores, *dp,
      *ds_right, *p_left, *ds_left, *lse, *delta;
  std::int32_t *lo, *hi;
  float *dk_sum = nullptr, *dv_sum = nullptr;
  std::int64_t q_at[kColumnBlock], o_at[kColumnBlock], do_at[kColumnBlock], dq_at[kColumnBlock],
      lse_at[kColumnBlock];

  BackwardItem(const AttentionBackward& a, const AttentionBackwardLayout& layout, float* scratch)
      : a(a), layout(layout) {
    d = a.shape.d, words = d / kStep, ld_d = layout.d_padded;
    const auto take = [&](std::int64_t n) {
      float* p = scratch;
      scratch += n;
      return p;
    };
    q_right = take(d * kColumnBlock), do_right = take(d * kColumnBlock),
    dq = take(d * kColumnBlock);
    q_rows = take(ld_d * kColumnBlock), do_rows = take(ld_d * kColumnBlock);
    k_left = take(d * kKeyBlock), v_left = take(d * kKeyBlock), k_transposed = take(d * kKeyBlock);
    scores = take(kKeyBlock * kMaxGroup), dp = take(kKeyBlock * kMaxGroup),
    ds_right = take(kKeyBlock * kMaxGroup);
    p_left = take(kKeyBlock * kColumnBlock), ds_left = take(kKeyBlock * kColumnBlock);
    lse = take(kColumnBlock), delta = take(kColumnBlock);
    lo = reinterpret_cast<std::int32_t*>(take(kColumnBlock)),
    hi = reinterpret_cast<std::int32_t*>(take(kColumnBlock));
  }

  KeyRange begin_block(std::int64_t block) {
    const AttentionShape& s = a.shape;
    first = block * kColumnBlock;
    count = smaller(kColumnBlock, layout.columns - first);
    padded = round_up(count, kLanes);
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t token = (first + c) / layout.group,
                         head = kv_head * layout.group + (first + c) % layout.group;
      q_at[c] = token * a.q_stride + head * d, o_at[c] = token * a.o_stride + head * d;
      do_at[c] = token * a.do_stride + head * d, dq_at[c] = token * a.dq_stride + head * d;
      lse_at[c] = token * s.heads + head;
    }
    return column_ranges(s, layout.group, first, count, padded, lo, hi);
  }

  void load_block() {
    const T *q = static_cast<const T*>(a.q), *g = static_cast<const T*>(a.d_o),
            *o = static_cast<const T*>(a.o);
    const auto q_row = [&](std::int64_t c) { return q + q_at[c]; };
    const auto do_row = [&](std::int64_t c) { return g + do_at[c]; };
    copy_right<pairs>(q_row, count, d, q_right, kColumnBlock);
    copy_right<pairs>(do_row, count, d, do_right, kColumnBlock);
    copy_right_rows<pairs>(q_row, count, padded, d, q_rows, ld_d);
    copy_right_rows<pairs>(do_row, count, padded, d, do_rows, ld_d);
    for (std::int64_t c = 0; c < padded; ++c) {
      const bool used = c < count && hi[c] >= lo[c];
      lse[c] = used ? a.lse[lse_at[c]] * kLog2e : 0.0f;
      Vec sum{};
      if (used)
        for_each_vec(d, [&](auto e, auto n) {
          sum = fma(load(o + o_at[c] + e, n), load(g + do_at[c] + e, n), sum);
        });
      delta[c] = reduce_add(sum);
    }
    std::memset(dq, 0, static_cast<std::size_t>(d * kColumnBlock) * 4);
  }

  void load_keys(std::int64_t key0, std::int64_t rows, std::int64_t block) {
    const T* k = static_cast<const T*>(a.k) + key0 * a.k_stride + kv_head * d;
    const T* v = static_cast<const T*>(a.v) + key0 * a.v_stride + kv_head * d;
    const auto k_row = [&](std::int64_t r) { return k + r * a.k_stride; };
    copy_left<pairs>(k_row, rows, block, d, k_left);
    copy_left<pairs>([&](std::int64_t r) { return v + r * a.v_stride; }, rows, block, d, v_left);
    if (a.dq) copy_left_transposed<pairs>(k_row, rows, block, d, k_transposed, kKeyWords);
  }

  // p and ds of a group for the rows that it needs, zero for the block's others; dq of the group.
  template <int vectors>
  RowRange group(std::int64_t c0, std::int64_t key0, std::int64_t key_rows, std::int64_t block) {
    constexpr int ld = vectors * kLanes;
    const KeyRange range = group_range(lo + c0, hi + c0, static_cast<int>(smaller(ld, count - c0)));
    RowRange rows = rows_in_block(range, key0, block);
    if (rows.begin >= rows.end) rows.begin = rows.end = 0;  // nothing to see, or a group of rows that see nothing
    clear_rows(c0, ld, 0, rows.begin);
    clear_rows(c0, ld, rows.end, block);
    if (rows.begin == rows.end) return rows;
    for (std::int64_t r = rows.begin; r < rows.end; r += kTileRows) {
      multiply_tile<pairs, vectors, false>(k_left + r * words, words, q_right + c0, kColumnBlock,
                                           scores + r * ld, ld, 0, words, nullptr);
      multiply_tile<pairs, vectors, false>(v_left + r * words, words, do_right + c0, kColumnBlock,
                                           dp + r * ld, ld, 0, words, nullptr);
    }
    const bool masked = rows.masked || rows.end > key_rows;
    for (int j = 0; j < vectors; ++j)
      score_gradients(c0 + j * kLanes, j * kLanes, ld, rows, key0, key0 + key_rows, masked);
    if (a.dq)
      for (std::int64_t e = 0; e < d; e += kTileRows)
        multiply_tile<pairs, vectors, true>(k_transposed + e * kKeyWords, kKeyWords, ds_right, ld,
                                            dq + e * kColumnBlock + c0, kColumnBlock,
                                            rows.begin / kStep, rows.end / kStep, nullptr);
    return rows;
  }

  void clear_rows(std::int64_t c0, std::int64_t ld, std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::memset(p_left + r * kColumnWords + c0 / kStep, 0,
                  static_cast<std::size_t>(ld / kStep) * 4);
      std::memset(ds_left + r * kColumnWords + c0 / kStep, 0,
                  static_cast<std::size_t>(ld / kStep) * 4);
    }
  }

  void score_gradients(std::int64_t c, std::int64_t at, std::int64_t ld, RowRange rows,
                       std::int64_t key0, std::int64_t end, bool masked) {
    const float scale = a.shape.scale * kLog2e;
    const Vec shift = Vec{} - load(lse + c), dl = load(delta + c);
    const VecI low = load(lo + c), high = load(hi + c);
    const float cap = a.shape.cap;
    for (std::int64_t r = rows.begin; r < rows.end; r += 2) {
      Vec p[2], ds[2];
      for (int u = 0; u < 2; ++u) {
        const Vec raw = load(scores + (r + u) * ld + at);
        const Vec t = cap > 0 ? tanh(raw * (a.shape.scale / cap)) : Vec{};
        p[u] = exp2(cap > 0 ? fma(t, set(cap * kLog2e), shift) : fma(raw, set(scale), shift));
        if (masked) {
          const VecI key = set_int(static_cast<std::int32_t>(key0 + r + u));
          p[u] = select((key >= low) & (key <= high) & set_int(key0 + r + u < end ? -1 : 0), p[u],
                        Vec{});
        }
        ds[u] = p[u] * (load(dp + (r + u) * ld + at) - dl);
        store_left(p_left + (r + u) * kColumnWords + c / kStep, p[u]);
        if (cap > 0) ds[u] = ds[u] * (1.0f - t * t);
        store_left(ds_left + (r + u) * kColumnWords + c / kStep, ds[u]);
      }
      if constexpr (pairs) {
        store(ds_right + r / 2 * ld + at, pack_words<true>(ds[0], ds[1]));
      } else {
        store(ds_right + r * ld + at, ds[0]);
        store(ds_right + (r + 1) * ld + at, ds[1]);
      }
    }
  }

  static void store_left(float* to, Vec v) {
#if defined(SIMD_AVX512)
    if constexpr (pairs)
      return store_half(to,
                        reinterpret_cast<VecH>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v))));
#endif
    store(to, v);
  }

  // dv += p do and dk += ds q, over the columns [begin, end) that the rows' tile needs.
  template <int vectors>
  void add_key_gradients(std::int64_t r, std::int64_t key0, std::int64_t e, std::int64_t begin,
                         std::int64_t end) {
    const std::int64_t to = (key0 + r) * ld_d + e;
    if (a.dv)
      multiply_tile<pairs, vectors, true>(p_left + r * kColumnWords, kColumnWords, do_rows + e,
                                          ld_d, dv_sum + to, ld_d, begin / kStep, end / kStep,
                                          nullptr);
    if (a.dk)
      multiply_tile<pairs, vectors, true>(ds_left + r * kColumnWords, kColumnWords, q_rows + e,
                                          ld_d, dk_sum + to, ld_d, begin / kStep, end / kStep,
                                          nullptr);
  }

  void keys(std::int64_t key0, std::int64_t rows) {
    const std::int64_t block = round_up(rows, kTileRows);
    load_keys(key0, rows, block);
    constexpr std::int64_t kWide = 2 * kLanes;
    RowRange groups[kColumnBlock / kWide + 1];
    std::int64_t starts[kColumnBlock / kWide + 2];
    int n = 0;
    std::int64_t c = 0;
    for (; padded - c >= kWide; c += kWide)
      starts[n] = c, groups[n++] = group<2>(c, key0, rows, block);
    if (c < padded) starts[n] = c, groups[n++] = group<1>(c, key0, rows, block);
    starts[n] = padded;
    for (std::int64_t r = 0; r < block; r += kTileRows) {
      std::int64_t begin = padded, end = 0;
      for (int g = 0; g < n; ++g)
        if (groups[g].begin <= r && r < groups[g].end)
          begin = smaller(begin, starts[g]), end = starts[g + 1];
      if (begin >= end) continue;
      std::int64_t e = 0;
      for (; ld_d - e >= kWide; e += kWide) add_key_gradients<2>(r, key0, e, begin, end);
      for (; e < ld_d; e += kLanes) add_key_gradients<1>(r, key0, e, begin, end);
    }
  }

  void write_dq() {
    T* out = static_cast<T*>(a.dq);
    const float scale = a.shape.scale;
    transpose_words(
        d, count,
        [&](std::int64_t e, std::int64_t c, auto n) {
          return load(dq + e * kColumnBlock + c, n) * scale;
        },
        [&](std::int64_t c, std::int64_t e, Vec v, int n) { store(out + dq_at[c] + e, v, n); });
  }

  // Column blocks [begin, end) of a kv head. The sums have room for a tile's padding rows behind
  // the last key.
  PartRange run(std::int64_t head_index, std::int64_t begin, std::int64_t end, float* dk,
                float* dv) {
    kv_head = head_index, dk_sum = dk, dv_sum = dv;
    PartRange part{INT64_MAX, INT64_MIN};
    for (std::int64_t block = begin; block < end; ++block) {
      const KeyRange range = begin_block(block);
      part = {smaller(part.begin, range.begin), larger(part.end, range.end)};
    }
    if (part.begin < part.end) {
      const std::size_t bytes =
          static_cast<std::size_t>((part.end - part.begin + kTileRows) * ld_d) * 4;
      std::memset(dk_sum + part.begin * ld_d, 0, bytes);
      std::memset(dv_sum + part.begin * ld_d, 0, bytes);
    }
    for (std::int64_t block = begin; block < end; ++block) {
      const KeyRange range = begin_block(block);
      load_block();
      for (std::int64_t key0 = range.begin; key0 < range.end; key0 += kKeyBlock)
        keys(key0, smaller(kKeyBlock, range.end - key0));
      if (a.dq) write_dq();
    }
    return part;
  }
};

// Splits the column blocks into parts of about equal work (keys seen); part i gets [cuts[i], cuts[i
// + 1]).
inline void cut_parts(const AttentionShape& s, const AttentionBackwardLayout& l,
                      std::int64_t* cuts) {
  const auto work = [&](std::int64_t block) {
    const std::int64_t begin = block * kColumnBlock / l.group,
                       end = smaller(s.queries, (block + 1) * kColumnBlock / l.group);
    std::int64_t sum = 64;  // what a block costs without any key
    for (std::int64_t t = begin; t < end; ++t) sum += larger(0, s.hi[t] - s.lo[t] + 1);
    return sum;
  };
  std::int64_t total = 0, seen = 0, part = 0;
  for (std::int64_t b = 0; b < l.blocks; ++b) total += work(b);
  cuts[0] = 0;
  for (std::int64_t b = 0; b < l.blocks; ++b) {
    while (part + 1 < l.parts && seen * l.parts >= total * (part + 1)) cuts[++part] = b;
    seen += work(b);
  }
  while (part < l.parts) cuts[++part] = l.blocks;
}

// One row of dk or dv: the parts' sums in order.
template <class T>
void write_key_gradient(const AttentionBackwardLayout& l, const float* sums,
                        const PartRange* ranges, std::int64_t kv_head, std::int64_t key,
                        std::int64_t d, float scale, T* to) {
  for_each_vec(d, [&](auto e, auto n) {
    Vec v{};
    for (std::int64_t p = 0; p < l.parts; ++p)
      if (key >= ranges[kv_head * l.parts + p].begin && key < ranges[kv_head * l.parts + p].end)
        v += load(sums + (kv_head * l.parts + p) * 2 * l.sums + key * l.d_padded + e, n);
    store(to + e, v * scale, n);
  });
}

template <bool pairs, class T>
void attention_backward_typed(Pool& pool, const AttentionBackward& a) {
  const AttentionBackwardLayout layout(a.shape, pool.threads());
  float* scratch = aligned(a.workspace);
  float* sums =
      scratch + layout.threads * layout.scratch;  // (kv_heads, parts, {dk, dv}, keys + padding, d)
  PartRange* ranges =
      reinterpret_cast<PartRange*>(sums + 2 * layout.kv_heads * layout.parts * layout.sums);
  std::int64_t cuts[kMaxParts + 1];
  cut_parts(a.shape, layout, cuts);
  const std::int64_t items = layout.kv_heads * layout.parts;
  std::int64_t next = 0;
  pool.each_thread([&](int thread) {
    BackwardItem<pairs, T> item(a, layout, scratch + thread * layout.scratch);
    for (std::int64_t i = take_item(next); i < items; i = take_item(next)) {
      const std::int64_t kv_head = i % layout.kv_heads,
                         part = layout.parts - 1 - i / layout.kv_heads;
      float* dk = sums + (kv_head * layout.parts + part) * 2 * layout.sums;
      ranges[kv_head * layout.parts + part] =
          item.run(kv_head, cuts[part], cuts[part + 1], dk, dk + layout.sums);
    }
  });
  const std::int64_t d = a.shape.d;
  pool.ranges(a.shape.keys, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t key = begin; key < end; ++key)
      for (std::int64_t h = 0; h < layout.kv_heads; ++h) {
        if (a.dk)
          write_key_gradient(layout, sums, ranges, h, key, d, a.shape.scale,
                             static_cast<T*>(a.dk) + key * a.dk_stride + h * d);
        if (a.dv)
          write_key_gradient(layout, sums + layout.sums, ranges, h, key, d, 1.0f,
                             static_cast<T*>(a.dv) + key * a.dv_stride + h * d);
      }
  });
}

inline void attention_backward(Pool& pool, const AttentionBackward& a) {
  check(a.shape);
  if (a.type == DType::f32) return attention_backward_typed<false, float>(pool, a);
#if defined(SIMD_AVX512)
  attention_backward_typed<true, bf16>(pool, a);
#else
  attention_backward_typed<false, bf16>(pool, a);
#endif
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
