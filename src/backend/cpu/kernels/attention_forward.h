// Attention forward for one instruction set. One item is a block of columns of one kv head and one
// piece of the keys: q is transposed once, then for each block of keys and each group of columns:
// scores, running softmax, output. Everything of a block pair fits the L2 cache: 128 columns and 64
// keys of size 64 take 110 KB with bf16.
#pragma once
#include "backend/cpu/kernels/attention_few.h"
#include "backend/cpu/kernels/attention_tile.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

constexpr float kLog2e = 0x1.715476p+0f, kLn2 = 0x1.62e43p-1f;

inline float* aligned(void* p) {
  return reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(p) + 63) / 64 * 64);
}
inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
inline std::int64_t round_up(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

inline std::int64_t take_item(std::int64_t& next) {
  return __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
}

// The key ranges of some columns: the hull of those that are not empty, and the keys that every
// column sees.
struct KeyRange {
  std::int64_t begin = INT64_MAX, end = INT64_MIN;                // hull
  std::int64_t common_begin = INT64_MIN, common_end = INT64_MAX;  // seen by all
  void add(std::int64_t lo, std::int64_t hi) {
    common_begin = larger(common_begin, lo);
    common_end = smaller(common_end, hi + 1);
    if (hi < lo) return;
    begin = smaller(begin, lo);
    end = larger(end, hi + 1);
  }
};

// The ranges of columns [first, first + count) as two arrays; unused columns see nothing.
inline KeyRange column_ranges(const AttentionShape& s, std::int64_t group, std::int64_t first,
                              std::int64_t count, std::int64_t padded, std::int32_t* lo,
                              std::int32_t* hi) {
  KeyRange range;
  for (std::int64_t c = 0; c < padded; ++c) {
    const std::int64_t token = (first + c) / group;
    lo[c] = c < count ? s.lo[token] : 0;
    hi[c] = c < count ? s.hi[token] : -1;
    if (c < count) range.add(lo[c], hi[c]);
  }
  return range;
}
inline KeyRange group_range(const std::int32_t* lo, const std::int32_t* hi, int count) {
  KeyRange range;
  for (int c = 0; c < count; ++c) range.add(lo[c], hi[c]);
  return range;
}

// The rows of a key block that a group of columns needs: whole tiles.
struct RowRange {
  std::int64_t begin, end;
  bool masked;
};
inline RowRange rows_in_block(const KeyRange& range, std::int64_t key0, std::int64_t padded) {
  RowRange r{};
  r.begin = larger(range.begin - key0, 0) / kTileRows * kTileRows;
  r.end = range.end <= key0 ? 0 : smaller(round_up(range.end - key0, kTileRows), padded);
  if (range.begin >= range.end) r.end = r.begin;
  r.masked = range.common_begin > key0 + r.begin || range.common_end < key0 + r.end;
  return r;
}

template <bool pairs, class T, class KV>
struct ForwardItem {
  const AttentionForward& a;
  const AttentionForwardLayout& layout;
  std::int64_t kv_head, first, count, padded, words;  // words: of a head, along d
  float *q, *k, *v, *tile, *scores, *probabilities, *out, *max_score, *sum;
  std::int32_t *lo, *hi;
  std::int64_t q_at[kColumnBlock], o_at[kColumnBlock],
      lse_at[kColumnBlock];  // where each column lies

  ForwardItem(const AttentionForward& a, const AttentionForwardLayout& layout, float* scratch)
      : a(a), layout(layout) {
    const std::int64_t d = a.shape.d;
    const auto take = [&](std::int64_t n) {
      float* p = scratch;
      scratch += n;
      return p;
    };
    q = take(d * kColumnBlock), out = take(d * kColumnBlock);
    k = take(d * kKeyBlock), v = take(d * kKeyBlock), tile = take(d * kKeyBlock);
    scores = take(kKeyBlock * kMaxGroup), probabilities = take(kKeyBlock * kMaxGroup);
    max_score = take(kColumnBlock), sum = take(kColumnBlock);
    lo = reinterpret_cast<std::int32_t*>(take(kColumnBlock)),
    hi = reinterpret_cast<std::int32_t*>(take(kColumnBlock));
    words = pairs ? d / 2 : d;
  }

  // Keys [key0, key0 + rows), rows of which `block` hold the operands, for the columns from c0.
  template <int vectors>
  void group(std::int64_t c0, std::int64_t key0, std::int64_t key_rows) {
    const std::int64_t d = a.shape.d, block = round_up(key_rows, kTileRows);
    constexpr int ld = vectors * kLanes;
    KeyRange range = group_range(lo + c0, hi + c0, static_cast<int>(smaller(ld, count - c0)));
    const RowRange rows = rows_in_block(range, key0, block);
    if (rows.begin >= rows.end) return;
    for (std::int64_t r = rows.begin; r < rows.end; r += kTileRows)
      multiply_tile<pairs, vectors, false>(k + r * words, words, q + c0, kColumnBlock,
                                           scores + r * ld, ld, 0, words, nullptr);
    if (a.shape.cap > 0)
      for (float* s = scores + rows.begin * ld; s != scores + rows.end * ld; s += kLanes) store(s, capped(load(s), a.shape));
    // The block's last rows may be padding: also out of range for an unmasked group.
    const bool masked = rows.masked || rows.end > key_rows;
    Vec alpha[vectors];
    for (int j = 0; j < vectors; ++j) {
      float* s = scores + j * kLanes;
      float* p = probabilities + j * kLanes;
      const std::int64_t c = c0 + j * kLanes;
      if (masked) mask(s, ld, rows, key0, key0 + key_rows, load(lo + c), load(hi + c));
      alpha[j] = soften(s, p, ld, rows, c);
    }
    const std::int64_t step = pairs ? 2 : 1;
    for (std::int64_t e = 0; e < d; e += kTileRows)
      multiply_tile<pairs, vectors, true>(v + e * (kKeyBlock / step), kKeyBlock / step,
                                          probabilities, ld, out + e * kColumnBlock + c0,
                                          kColumnBlock, rows.begin / step, rows.end / step, alpha);
  }

  static void mask(float* s, std::int64_t ld, RowRange rows, std::int64_t key0, std::int64_t end,
                   VecI lo, VecI hi) {
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      const VecI key = set_int(static_cast<std::int32_t>(key0 + r));
      const VecI seen = (key >= lo) & (key <= hi) & set_int(key0 + r < end ? -1 : 0);
      store(s + r * ld, select(seen, load(s + r * ld), set(-kInfinity)));
    }
  }

  // Scores to probabilities relative to the running maximum; returns the factor for what was summed
  // before.
  Vec soften(const float* s, float* p, std::int64_t ld, RowRange rows, std::int64_t c) {
    const float scale = a.shape.scale * kLog2e;
    Vec tops[2] = {load(max_score + c), set(-kInfinity)};
    for (std::int64_t r = rows.begin; r < rows.end; r += 2) {
      tops[0] = max(tops[0], load(s + r * ld));
      tops[1] = max(tops[1], load(s + (r + 1) * ld));
    }
    const Vec old = load(max_score + c), top = max(tops[0], tops[1]);
    const Vec base = select(top == -kInfinity, Vec{}, top), shift = base * -scale;
    const Vec alpha = exp2(fma(old, scale, shift));
    Vec sums[2] = {};
    for (std::int64_t r = rows.begin; r < rows.end; r += 2) {
      const Vec even = exp2(fma(load(s + r * ld), scale, shift)),
                odd = exp2(fma(load(s + (r + 1) * ld), scale, shift));
      sums[0] += even;
      sums[1] += odd;
      if constexpr (pairs) {
        store(p + r / 2 * ld, pack_words<true>(even, odd));
      } else {
        store(p + r * ld, even);
        store(p + (r + 1) * ld, odd);
      }
    }
    store(max_score + c, top);
    store(sum + c, fma(load(sum + c), alpha, sums[0] + sums[1]));
    return alpha;
  }

  // Columns [first, first + kColumnBlock) of a kv head over piece `split` of their keys.
  void run(std::int64_t head_index, std::int64_t block, std::int64_t split, float* partials) {
    const AttentionShape& s = a.shape;
    kv_head = head_index;
    first = block * kColumnBlock;
    count = smaller(kColumnBlock, layout.columns - first);
    padded = round_up(count, kLanes);
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t token = (first + c) / layout.group,
                         head = kv_head * layout.group + (first + c) % layout.group;
      q_at[c] = token * a.q_stride + head * s.d;
      o_at[c] = token * a.o_stride + head * s.d;
      lse_at[c] = token * s.heads + head;
    }
    const KeyRange range = column_ranges(s, layout.group, first, count, padded, lo, hi);
    std::int64_t begin = range.begin, end = range.end;
    if (begin < end && layout.splits > 1) {
      const std::int64_t blocks = (end - begin + kKeyBlock - 1) / kKeyBlock;
      const std::int64_t from = begin + blocks * split / layout.splits * kKeyBlock;
      end = smaller(end, begin + blocks * (split + 1) / layout.splits * kKeyBlock);
      begin = from;
    }
    if (begin < end) copy_queries();
    std::memset(out, 0, static_cast<std::size_t>(s.d * kColumnBlock) * 4);
    for (std::int64_t c = 0; c < padded; c += kLanes)
      store(max_score + c, set(-kInfinity)), store(sum + c, Vec{});
    if (s.sinks && split == 0)  // as a key that was seen before the others
      for (std::int64_t c = 0; c < count; ++c)
        max_score[c] = s.sinks[kv_head * layout.group + (first + c) % layout.group] / s.scale, sum[c] = 1;
    for (std::int64_t key0 = begin; key0 < end; key0 += kKeyBlock)
      keys(key0, smaller(kKeyBlock, end - key0));
    partials ? write_partial(partials) : write();
  }

  // f32 queries of products in bf16 are rounded first, into what will be the output.
  void copy_queries() {
    const std::int64_t d = a.shape.d;
    const T* q_rows = static_cast<const T*>(a.q);
    if constexpr (pairs && std::is_same_v<T, float>) {
      bf16* rows = reinterpret_cast<bf16*>(out);
      for (std::int64_t c = 0; c < count; ++c)
        for_each_vec(
            d, [&](auto e, auto n) { store(rows + c * d + e, load(q_rows + q_at[c] + e, n), n); });
      copy_right<pairs>([&](std::int64_t c) { return rows + c * d; }, count, d, q, kColumnBlock);
    } else {
      copy_right<pairs>([&](std::int64_t c) { return q_rows + q_at[c]; }, count, d, q,
                        kColumnBlock);
    }
  }

  // Calls f with where each row of a block of keys or values begins; coded ones are decoded first.
  template <class F>
  void with_rows(const void* base, std::int64_t stride, std::int64_t key0, std::int64_t rows,
                 F&& f) {
    const std::int64_t d = a.shape.d;
    const KV* first_row =
        static_cast<const KV*>(base) + (key0 * stride + kv_head * d) / kNumbers<KV>;
    if constexpr (kCoded<KV>) {
      using Number = std::conditional_t<pairs, bf16, float>;
      Number* numbers = reinterpret_cast<Number*>(tile);
      decode_rows(first_row, rows, stride, d, numbers);
      f([&](std::int64_t r) { return numbers + r * d; });
    } else {
      f([&](std::int64_t r) { return first_row + r * stride; });
    }
  }

  void keys(std::int64_t key0, std::int64_t rows) {
    const std::int64_t d = a.shape.d, block = round_up(rows, kTileRows);
    with_rows(a.k, a.k_stride, key0, rows,
              [&](auto&& row) { copy_left<pairs>(row, rows, block, d, k); });
    with_rows(a.v, a.v_stride, key0, rows, [&](auto&& row) {
      copy_left_transposed<pairs>(row, rows, block, d, v, kKeyBlock / (pairs ? 2 : 1));
    });
    std::int64_t c = 0;
    for (; padded - c >= 2 * kLanes; c += 2 * kLanes) group<2>(c, key0, rows);
    if (c < padded) group<1>(c, key0, rows);
  }

  void write() {
    for (std::int64_t c = 0; c < count; ++c) {
      if (a.lse)
        a.lse[lse_at[c]] =
            sum[c] > 0 ? max_score[c] * a.shape.scale + __builtin_logf(sum[c]) : -kInfinity;
      sum[c] = sum[c] > 0 ? 1.0f / sum[c] : 0.0f;
    }
    T* o = static_cast<T*>(a.o);
    transpose_words(
        a.shape.d, count,
        [&](std::int64_t e, std::int64_t c, auto n) {
          return load(out + e * kColumnBlock + c, n) * load(sum + c, n);
        },
        [&](std::int64_t c, std::int64_t e, Vec v, int n) { store(o + o_at[c] + e, v, n); });
  }

  // A column's output before division, its maximum and its sum, for the columns of this block.
  void write_partial(float* partials) {
    const std::int64_t d = a.shape.d, size = layout.partial;
    float* p = partials + first * size;
    transpose_words(
        d, count,
        [&](std::int64_t e, std::int64_t c, auto n) { return load(out + e * kColumnBlock + c, n); },
        [&](std::int64_t c, std::int64_t e, Vec v, int n) { store(p + c * size + e, v, n); });
    for (std::int64_t c = 0; c < count; ++c)
      p[c * size + d] = max_score[c], p[c * size + d + 1] = sum[c];
  }
};

// Adds the pieces of one column up, in order.
template <class T>
void combine_column(const AttentionForward& a, const AttentionForwardLayout& l,
                    const float* partials, std::int64_t kv_head, std::int64_t c) {
  const std::int64_t d = a.shape.d, token = c / l.group, head = kv_head * l.group + c % l.group;
  const auto piece = [&](std::int64_t s) {
    return partials + ((s * l.kv_heads + kv_head) * l.columns + c) * l.partial;
  };
  float top = -kInfinity, sum = 0;
  for (std::int64_t s = 0; s < l.splits; ++s) top = piece(s)[d] > top ? piece(s)[d] : top;
  float weights[kMaxSplits];
  for (std::int64_t s = 0; s < l.splits; ++s) {
    weights[s] =
        top == -kInfinity ? 0.0f : __builtin_exp2f((piece(s)[d] - top) * a.shape.scale * kLog2e);
    sum += weights[s] * piece(s)[d + 1];
  }
  if (a.lse)
    a.lse[token * a.shape.heads + head] =
        sum > 0 ? top * a.shape.scale + __builtin_logf(sum) : -kInfinity;
  const float inverse = sum > 0 ? 1.0f / sum : 0.0f;
  T* o = static_cast<T*>(a.o) + token * a.o_stride + head * d;
  for_each_vec(d, [&](auto e, auto n) {
    Vec v{};
    for (std::int64_t s = 0; s < l.splits; ++s) v = fma(load(piece(s) + e, n), set(weights[s]), v);
    store(o + e, v * inverse, n);
  });
}

template <class T>
void combine(Pool& pool, const AttentionForward& a, const AttentionForwardLayout& layout,
             const float* partials) {
  pool.ranges(layout.kv_heads * layout.columns, layout.splits > 8 ? 1 : 16,
              [&](std::int64_t begin, std::int64_t end, int) {
                for (std::int64_t i = begin; i < end; ++i)
                  combine_column<T>(a, layout, partials, i / layout.columns, i % layout.columns);
              });
}

template <class T, class KV>
void attention_few(Pool& pool, const AttentionForward& a, const AttentionForwardLayout& layout) {
  float* scratch = aligned(a.workspace);
  float* partials = scratch + layout.threads * layout.scratch;
  std::int64_t next = 0;  // who takes an item does not change its result
  pool.each_thread([&](int thread) {
    FewColumnsItem<T, KV> item(a, layout, scratch + thread * layout.scratch);
    for (std::int64_t i = take_item(next); i < layout.splits; i = take_item(next))
      item.run(i, partials + i * layout.kv_heads * layout.columns * layout.partial);
  });
  combine<T>(pool, a, layout, partials);
}

template <bool pairs, class T, class KV>
void attention_forward_typed(Pool& pool, const AttentionForward& a) {
  const AttentionForwardLayout layout(a.shape, pool.threads());
  if (layout.few()) return attention_few<T, KV>(pool, a, layout);
  float* scratch = aligned(a.workspace);
  float* partials = scratch + layout.threads * layout.scratch;
  const std::int64_t items = layout.blocks * layout.kv_heads * layout.splits;
  std::int64_t next = 0;  // who takes an item does not change its result
  pool.each_thread([&](int thread) {
    ForwardItem<pairs, T, KV> item(a, layout, scratch + thread * layout.scratch);
    for (std::int64_t i = take_item(next); i < items; i = take_item(next)) {
      const std::int64_t split = i % layout.splits, rest = i / layout.splits,
                         kv_head = rest % layout.kv_heads;
      const std::int64_t block =
          layout.blocks - 1 - rest / layout.kv_heads;  // later queries see more keys: these first
      float* p = layout.splits > 1 ? partials + (split * layout.kv_heads + kv_head) *
                                                    layout.columns * layout.partial
                                   : nullptr;
      item.run(kv_head, block, split, p);
    }
  });
  if (layout.splits > 1) combine<T>(pool, a, layout, partials);
}

template <class T, bool can_pair>
void attention_forward_for(Pool& pool, const AttentionForward& a) {
  if (a.kv_codes == CacheCodes::fp8) return attention_forward_typed<can_pair, T, Fp8>(pool, a);
  if (a.kv_codes == CacheCodes::q8_0) return attention_forward_typed<can_pair, T, Q8>(pool, a);
  switch (a.kv_type) {
    case DType::bf16:
      return attention_forward_typed<can_pair, T, bf16>(pool, a);
    case DType::f16:
      return attention_forward_typed<false, T, f16>(pool, a);
    default:
      return attention_forward_typed<false, T, float>(pool, a);
  }
}

inline void attention_forward(Pool& pool, const AttentionForward& a) {
  check(a);
  if (a.type == DType::bf16) return attention_forward_for<bf16, kHasPairs>(pool, a);
  const bool exact = a.kv_codes == CacheCodes::none && a.kv_type != DType::bf16;
  if constexpr (kHasPairs)
    if (a.rounded && !exact) return attention_forward_for<float, true>(pool, a);
  attention_forward_for<float, false>(pool, a);
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
