// The search behind the encoders without a minimum (Q3_K, Q6_K, IQ4_NL, IQ4_XS): groups of weights
// as scale * level, the levels a fixed set.
//
// A group's scale is fitted by weighted least squares over a set of ranges that map its farthest
// weight near to an end of the levels. Where the scales are integers times a super-scale d, they
// are rounded, then the block improves by turns: every integer against its neighbours, and d by
// least squares over all weights. Levels has `lowest` and `highest`, the `step` in which ranges are
// tried, and nearest(): the levels nearest to inverse * x.
#pragma once
#include "formats/block.h"
#include "formats/fit.h"

namespace supersonic::formats {

// Whole numbers from kLowest to kHighest.
template <int kLowest, int kHighest>
struct WholeLevels {
  static constexpr float lowest = kLowest, highest = kHighest, step = 0.1f;
  static constexpr bool both_ends = false;  // the range has one step more at the lowest end
  template <int N>
  static void nearest(const float* x, float inverse, float* q) {
    for (int i = 0; i < N; ++i) q[i] = nearest_code(x[i] * inverse, lowest, highest);
  }
};

// The scale of least weighted squared error among ranges that map the farthest weight near to an
// end of the levels.
template <class Levels, int N>
float search_scale(const float* x, const float* w) {
  const float top = farthest(x, N);
  float q[N], best_gain = 0, best = 0;
  for (int end = 0; end < (Levels::both_ends ? 2 : 1); ++end) {
    for (int step = -9; step <= 9; ++step) {
      const float far = end ? Levels::highest + Levels::step * static_cast<float>(step)
                            : Levels::lowest - Levels::step * static_cast<float>(step);
      const float inverse = far / top;
      if (!std::isfinite(inverse)) return 0;
      Levels::template nearest<N>(x, inverse, q);
      const Moments m = moments<N>(x, w, q);
      const float gain = m.qq > 0 ? m.qx * m.qx / m.qq : 0;
      if (gain > best_gain) {
        best_gain = gain;
        best = m.qx / m.qq;
      }
    }
  }
  return best;
}

// The levels of a group for a given scale; returns the weighted squared error.
template <class Levels, int N>
float group_levels(float scale, const float* x, const float* w, float* q) {
  Levels::template nearest<N>(x, magnitude(scale) > 0 ? 1 / scale : 0.0f, q);
  return weighted_error<N>(x, w, q, scale, 0);
}

// 256 weights in kGroups groups, scales d * s with integers s.
template <class Levels, int kGroups, int kLowestInteger, int kHighestInteger>
struct SymmetricSearch {
  static constexpr int kSize = 256 / kGroups;

  struct Draft {
    float d = 0, error = 0;  // d: an exact binary16 value
    float s[kGroups] = {};
    float q[256] = {};  // levels
  };

  static Draft run(const float* x) {
    float w[256];
    importance<256>(x, w);
    Draft best = first_draft(x, w);
    for (int round = 0; round < 3; ++round) {
      Draft next = best;
      if (!refit(next, x, w)) break;
      choose_integers(next, x, w, best.s);
      if (next.error >= best.error) break;
      best = next;
    }
    return best;
  }

 private:
  // Tries each group's integer and its neighbours, and sets the levels of the best.
  static void choose_integers(Draft& t, const float* x, const float* w, const float* start) {
    t.error = 0;
    for (int k = 0; k < kGroups; ++k) {
      float best = INFINITY, q[kSize];
      for (int step = -1; step <= 1; ++step) {
        const float s =
            std::clamp<float>(start[k] + static_cast<float>(step), kLowestInteger, kHighestInteger);
        const float error = group_levels<Levels, kSize>(t.d * s, x + kSize * k, w + kSize * k, q);
        if (error >= best) continue;
        best = error;
        t.s[k] = s;
        std::copy(q, q + kSize, t.q + kSize * k);
      }
      t.error += best;
    }
  }

  static Draft first_draft(const float* x, const float* w) {
    Draft t;
    float scales[kGroups], start[kGroups];
    for (int k = 0; k < kGroups; ++k)
      scales[k] = search_scale<Levels, kSize>(x + kSize * k, w + kSize * k);
    t.d = super_scale(farthest(scales, kGroups) / kLowestInteger);
    for (int k = 0; k < kGroups; ++k) {
      start[k] =
          magnitude(t.d) > 0 ? nearest_code(scales[k] / t.d, kLowestInteger, kHighestInteger) : 0;
    }
    choose_integers(t, x, w, start);
    return t;
  }

  // d of least weighted squared error for the draft's integers and levels.
  static bool refit(Draft& t, const float* x, const float* w) {
    double qq = 0, qx = 0;
    for (int k = 0; k < kGroups; ++k) {
      const Moments g = moments<kSize>(x + kSize * k, w + kSize * k, t.q + kSize * k);
      qq += static_cast<double>(t.s[k]) * t.s[k] * g.qq;
      qx += static_cast<double>(t.s[k]) * g.qx;
    }
    if (qq <= 0) return false;
    t.d = static_cast<float>(f16(static_cast<float>(qx / qq)));
    return magnitude(t.d) > 0 && magnitude(t.d) < kLargestWeight;
  }
};

}  // namespace supersonic::formats
