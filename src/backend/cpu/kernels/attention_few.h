// Attention forward for a handful of columns, as in decoding: keys and values are read row by row
// as they lie, and only that reading should cost. One item is one piece of the keys for all kv
// heads, whose rows lie side by side: memory is read in order. Per 64 keys and head: dot products
// along d, summed over the lanes sixteen keys at a time; running softmax; then weighted sums of the
// values, kept in registers.
#pragma once
#include "backend/cpu/kernels/attention_tile.h"
#include "backend/cpu/kernels/cache_rows.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

// Lane i of the result is the sum of the lanes of v[i].
template <int step>
inline void fold(Vec (&v)[kLanes]) {
  if constexpr (step >= 1) {
    for (int i = 0; i < step; ++i) {
      exchange<step>(v[i], v[i + step], std::make_index_sequence<kLanes>{});
      v[i] += v[i + step];
    }
    fold<step / 2>(v);
  }
}

template <class T, class KV>
struct FewColumnsItem {
  static constexpr int kVectors =
      kLanes == 16 ? 4 : 2;  // of a value's row that are summed together
  const AttentionForward& a;
  const AttentionForwardLayout& layout;
  std::int64_t d, ld, k_step, v_step;  // steps: from row to row
  std::int64_t total;               // columns of all kv heads
  float *all_q, *all_out, *scores;  // (total, ld) twice; (columns, keys)
  float* scaled;                    // (blocks of Q8_0, columns, keys)
  float *all_top, *all_sum;         // (total)
  float *q = nullptr, *out = nullptr, *top = nullptr,
        *sum = nullptr;  // those of the kv head at work
  std::int32_t lo[kFewColumns], hi[kFewColumns];

  FewColumnsItem(const AttentionForward& a, const AttentionForwardLayout& layout, float* scratch)
      : a(a),
        layout(layout),
        d(a.shape.d),
        ld(layout.d_padded),
        k_step(a.k_stride / kNumbers<KV>),
        v_step(a.v_stride / kNumbers<KV>),
        total(layout.kv_heads * layout.columns) {
    all_q = scratch, all_out = all_q + total * ld, scores = all_out + total * ld;
    scaled = scores + kFewColumns * kKeyBlock;
    all_top = scaled + d / kNumbers<Q8> * kFewColumns * kKeyBlock, all_sum = all_top + total;
  }

  void choose(std::int64_t kv_head) {
    const std::int64_t row = kv_head * layout.columns;
    q = all_q + row * ld, out = all_out + row * ld, top = all_top + row, sum = all_sum + row;
  }

  // A head's rows lie far apart, which defeats the machine's own prefetching: while the keys are
  // read, the block's values are asked for, and while these are read, the next head's keys, or the next
  // block's.
  void prefetch(const KV* row) const {
    const auto bytes = d / kNumbers<KV> * static_cast<std::int64_t>(sizeof(KV));
    for (std::int64_t at = 0; at < bytes; at += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(row) + at, 0, 2);
  }

  template <int rows>
  void score(const KV* keys, const KV* values, std::int64_t n, std::int64_t row0) {
    for (std::int64_t i0 = 0; i0 < n; i0 += kLanes) {
      Vec sums[rows][kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const KV* key = keys + (i0 + i < n ? i0 + i : n - 1) * k_step;
        if (row0 == 0 && i0 + i < n) prefetch(values + (i0 + i) * v_step);
        Vec acc[rows] = {};
        for_each_vec(d, [&](auto e, auto m) {
          const Vec x = std::is_same_v<KV, Q8> ? load_numbers(key, e, m) : load_units(key, e, m);
          for (int r = 0; r < rows; ++r) acc[r] = fma(x, load(q + (row0 + r) * ld + e), acc[r]);
        });
        for (int r = 0; r < rows; ++r) sums[r][i] = acc[r];
      }
      for (int r = 0; r < rows; ++r) {
        fold<kLanes / 2>(sums[r]);
        store(scores + (row0 + r) * kKeyBlock + i0, sums[r][0]);
      }
    }
  }

  template <int rows, int vectors>
  void add_values(const KV* values, const KV* next_keys, std::int64_t n, std::int64_t row0,
                  std::int64_t e) {
    Vec acc[rows][vectors];
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < vectors; ++j) acc[r][j] = load(out + (row0 + r) * ld + e + j * kLanes);
    for (std::int64_t i = 0; i < n; ++i) {
      const KV* row = values + i * v_step;
      if (next_keys) prefetch(next_keys + i * k_step);
      Vec x[vectors];
      if (vectors == 1 && d - e < kLanes) {
        x[0] = load_units(row, e, static_cast<int>(d - e));
      } else {
        for (int j = 0; j < vectors; ++j) x[j] = load_units(row, e + j * kLanes, AllLanes{});
      }
      for (int r = 0; r < rows; ++r)
        for (int j = 0; j < vectors; ++j)
          acc[r][j] = fma(set(weights(row0 + r, e + j * kLanes)[i]), x[j], acc[r][j]);
    }
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < vectors; ++j) store(out + (row0 + r) * ld + e + j * kLanes, acc[r][j]);
  }

  // What the values' elements from e on are multiplied by, for each key of the block: the
  // probabilities of a column, with the scale of e's block of Q8_0.
  const float* weights(std::int64_t column, std::int64_t e) const {
    if constexpr (std::is_same_v<KV, Q8>)
      return scaled + (e / kNumbers<Q8> * layout.columns + column) * kKeyBlock;
    else
      return scores + column * kKeyBlock;
  }

  void scale_weights(const KV* values, std::int64_t n) {
    for (std::int64_t b = 0; b < d / kNumbers<Q8>; ++b) {
      std::uint16_t bits[kKeyBlock] = {};
      for (std::int64_t i = 0; i < n; ++i) bits[i] = values[i * v_step + b].d.bits;
      for (std::int64_t i = 0; i < n; i += kLanes) {
        const Vec scale = widen_f16(load_half(bits + i));
        for (std::int64_t c = 0; c < layout.columns; ++c)
          store(scaled + (b * layout.columns + c) * kKeyBlock + i,
                load(scores + c * kKeyBlock + i) * scale);
      }
    }
  }

  // Scores to probabilities relative to the running maximum, what was summed before rescaled.
  void soften(std::int64_t c, std::int64_t key0, std::int64_t n) {
    float* s = scores + c * kKeyBlock;
    const float scale = a.shape.scale * 0x1.715476p+0f;
    Vec best = set(top[c]);
    for (std::int64_t i = 0; i < n; i += kLanes) {
      const VecI key = iota() + static_cast<std::int32_t>(key0 + i);
      const VecI seen =
          (key >= lo[c]) & (key <= hi[c]) & (key < static_cast<std::int32_t>(key0 + n));
      const Vec raw = a.shape.cap > 0 ? capped(load(s + i), a.shape) : load(s + i);
      const Vec v = select(seen, raw, set(-kInfinity));
      store(s + i, v);
      best = max(best, v);
    }
    const float now = reduce_max(best), base = now == -kInfinity ? 0.0f : now;
    const float alpha = top[c] == -kInfinity ? 0.0f : __builtin_exp2f((top[c] - base) * scale);
    Vec total{};
    for (std::int64_t i = 0; i < n; i += kLanes) {
      const Vec p = exp2((load(s + i) - base) * scale);
      store(s + i, p);
      total += p;
    }
    sum[c] = sum[c] * alpha + reduce_add(total);
    top[c] = now;
    if (alpha != 1.0f)
      for (std::int64_t e = 0; e < ld; e += kLanes)
        store(out + c * ld + e, load(out + c * ld + e) * alpha);
  }

  template <int rows>
  void add_rows(const KV* values, const KV* next_keys, std::int64_t n, std::int64_t row0) {
    std::int64_t e = 0;
    const auto next = [&] { return row0 == 0 && e == 0 ? next_keys : nullptr; };
    for (; d - e >= kVectors * kLanes; e += kVectors * kLanes)
      add_values<rows, kVectors>(values, next(), n, row0, e);
    for (; e < d; e += kLanes) add_values<rows, 1>(values, next(), n, row0, e);
  }

  // Up to four rows at a time have their sums in registers.
  template <class F>
  void by_rows(F&& f) {
    for (std::int64_t row = 0; row < layout.columns; row += 4) {
      const std::int64_t left = layout.columns - row;
      if (left >= 4) f(std::integral_constant<int, 4>{}, row);
      if (left == 3) f(std::integral_constant<int, 3>{}, row);
      if (left == 2) f(std::integral_constant<int, 2>{}, row);
      if (left == 1) f(std::integral_constant<int, 1>{}, row);
    }
  }

  // A head's sink counts as a key that was seen before the first piece.
  void begin_head(std::int64_t kv_head, bool first_piece) {
    choose(kv_head);
    for (std::int64_t c = 0; c < layout.columns; ++c) {
      const std::int64_t token = c / layout.group, head = kv_head * layout.group + c % layout.group;
      const T* row = static_cast<const T*>(a.q) + token * a.q_stride + head * d;
      std::memset(q + c * ld, 0, static_cast<std::size_t>(ld) * 4);
      for_each_vec(
          d, [&](auto e, auto n) { store(q + c * ld + e, load(row + e, n) * kUnit<KV>, n); });
      std::memset(out + c * ld, 0, static_cast<std::size_t>(ld) * 4);
      const bool sink = first_piece && a.shape.sinks;
      top[c] = sink ? a.shape.sinks[head] / a.shape.scale : -kInfinity, sum[c] = sink ? 1.0f : 0.0f;
    }
  }

  // Piece `split` of the keys; partials: one for each column of each kv head.
  void run(std::int64_t split, float* partials) {
    std::int64_t begin = INT64_MAX, end = 0;
    for (std::int64_t c = 0; c < layout.columns; ++c) {
      lo[c] = a.shape.lo[c / layout.group], hi[c] = a.shape.hi[c / layout.group];
      if (hi[c] >= lo[c])
        begin = begin < lo[c] ? begin : lo[c], end = end > hi[c] + 1 ? end : hi[c] + 1;
    }
    for (std::int64_t h = 0; h < layout.kv_heads; ++h) begin_head(h, split == 0);
    const std::int64_t blocks = begin < end ? (end - begin + kKeyBlock - 1) / kKeyBlock : 0;
    for (std::int64_t b = blocks * split / layout.splits; b < blocks * (split + 1) / layout.splits;
         ++b) {
      const std::int64_t key0 = begin + b * kKeyBlock,
                         n = end - key0 < kKeyBlock ? end - key0 : kKeyBlock;
      for (std::int64_t h = 0; h < layout.kv_heads; ++h) {
        choose(h);
        const std::int64_t head = d / kNumbers<KV>;
        const KV* keys = static_cast<const KV*>(a.k) + key0 * k_step + h * head;
        const KV* values = static_cast<const KV*>(a.v) + key0 * v_step + h * head;
        const KV* next_keys = keys + head;  // beyond the last head: the next block's first
        if (h + 1 == layout.kv_heads)
          next_keys = key0 + 2 * kKeyBlock <= end ? keys - h * head + kKeyBlock * k_step : nullptr;
        by_rows([&](auto rows, std::int64_t row) { score<rows()>(keys, values, n, row); });
        for (std::int64_t c = 0; c < layout.columns; ++c) soften(c, key0, n);
        if constexpr (std::is_same_v<KV, Q8>) scale_weights(values, n);
        by_rows([&](auto rows, std::int64_t row) { add_rows<rows()>(values, next_keys, n, row); });
      }
    }
    for (std::int64_t i = 0; i < total; ++i) {
      float* p = partials + i * layout.partial;
      for_each_vec(
          d, [&](auto e, auto m) { store(p + e, load(all_out + i * ld + e, m) * kUnit<KV>, m); });
      p[d] = all_top[i], p[d + 1] = all_sum[i];
    }
  }
};

}  // namespace supersonic::cpu::SIMD_NAMESPACE
