// The search behind the encoders of Q2_K, Q4_K and Q5_K: 256 weights as d s q - dmin m with codes q
// from 0 to kTop and, for each of kGroups groups, integers s and m from 0 to kTopInteger.
//
// Each group is fitted by weighted least squares over a set of ranges (fit.h); scales and minima
// are rounded to integers; then the whole block improves by turns: every (s, m) against its eight
// neighbours, and (d, dmin) by least squares over all 256 weights.
#pragma once
#include "formats/block.h"
#include "formats/fit.h"

namespace supersonic::formats {

template <int kGroups, int kTop, int kTopInteger>
struct AffineSearch {
  static constexpr int kSize = 256 / kGroups;

  // Every group's scale and minimum as integers, and the codes that go with them.
  struct Draft {
    float d = 0, dmin = 0, error = 0;  // d, dmin: exact binary16 values
    float s[kGroups] = {}, m[kGroups] = {};
    float q[256] = {};
  };

  static Draft run(const float* x) {
    float w[256];
    importance<256>(x, w);
    Draft best = first_draft(x, w);
    for (int round = 0; round < 3; ++round) {
      Draft next = best;
      if (!refit(next, x, w)) break;
      float start[kGroups][2];
      for (int k = 0; k < kGroups; ++k) {
        start[k][0] = next.s[k];
        start[k][1] = next.m[k];
      }
      choose_integers(next, x, w, start);
      if (next.error >= best.error) break;
      best = next;
    }
    return best;
  }

 private:
  static float rounded(float x) { return static_cast<float>(f16(x)); }

  // Codes of a group for given integers; returns the weighted squared error.
  static float group_codes(const Draft& t, const float* x, const float* w, float s, float m,
                           float* q) {
    const float scale = t.d * s, offset = -t.dmin * m;
    affine_codes<kSize>(x, scale > 0 ? 1 / scale : 0.0f, offset, kTop, q);
    return weighted_error<kSize>(x, w, q, scale, offset);
  }

  // Tries each group's integers and their neighbours, and sets the codes of the best.
  static void choose_integers(Draft& t, const float* x, const float* w, const float (*start)[2]) {
    t.error = 0;
    for (int k = 0; k < kGroups; ++k) {
      float best = INFINITY, q[kSize];
      for (int ds = -1; ds <= 1; ++ds) {
        for (int dm = -1; dm <= 1; ++dm) {
          const float s = std::clamp<float>(start[k][0] + static_cast<float>(ds), 0, kTopInteger);
          const float m = std::clamp<float>(start[k][1] + static_cast<float>(dm), 0, kTopInteger);
          const float error = group_codes(t, x + kSize * k, w + kSize * k, s, m, q);
          if (error >= best) continue;
          best = error;
          t.s[k] = s;
          t.m[k] = m;
          std::copy(q, q + kSize, t.q + kSize * k);
        }
      }
      t.error += best;
    }
  }

  // (d, dmin) of least weighted squared error for the draft's integers and codes; false if there is
  // no such pair.
  static bool refit(Draft& t, const float* x, const float* w) {
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // x ~ d a + dmin b with a = s q, b = -m
    for (int k = 0; k < kGroups; ++k) {
      const Moments g = moments<kSize>(x + kSize * k, w + kSize * k, t.q + kSize * k);
      const double s = t.s[k], m = t.m[k];
      aa += s * s * g.qq;
      ab -= s * m * g.q;
      bb += m * m * g.w;
      ax += s * g.qx;
      bx -= m * g.x;
    }
    const double determinant = aa * bb - ab * ab;
    if (aa <= 0) return false;
    double d = ax / aa, dmin = 0;
    if (determinant > 1e-9 * aa * bb) {
      d = (bb * ax - ab * bx) / determinant;
      dmin = (aa * bx - ab * ax) / determinant;
    }
    t.d = rounded(static_cast<float>(d));
    t.dmin = rounded(static_cast<float>(dmin));
    return t.d > 0 && t.dmin >= 0 && t.d < kLargestWeight && t.dmin < kLargestWeight;
  }

  static Draft first_draft(const float* x, const float* w) {
    Draft t;
    AffineFit fits[kGroups];
    float top_scale = 0, top_min = 0, start[kGroups][2];
    for (int k = 0; k < kGroups; ++k) {
      fits[k] = search_affine<kSize>(x + kSize * k, w + kSize * k, kTop);
      top_scale = std::max(top_scale, fits[k].scale);
      top_min = std::max(top_min, -fits[k].offset);
    }
    t.d = super_scale(top_scale / kTopInteger);
    t.dmin = super_scale(top_min / kTopInteger);
    for (int k = 0; k < kGroups; ++k) {
      start[k][0] = t.d > 0 ? nearest_code(fits[k].scale / t.d, 0, kTopInteger) : 0;
      start[k][1] = t.dmin > 0 ? nearest_code(-fits[k].offset / t.dmin, 0, kTopInteger) : 0;
    }
    choose_integers(t, x, w, start);
    return t;
  }
};

}  // namespace supersonic::formats
