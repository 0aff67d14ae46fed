// Least-squares fitting of scales, shared by the encoders of the K-quants.
//
// A group of weights x with importances w is approximated by scale * q + offset with integer codes
// q. For fixed codes the best scale and offset solve a 2 x 2 linear system; for a fixed scale and
// offset the best codes are the nearest ones. A search tries a set of ranges and keeps the one
// of least weighted squared error. The loops have constant trip counts and no branches, so that
// the compiler vectorizes them.
#pragma once
#include <algorithm>
#include <cmath>

#include "core/dtype.h"

namespace supersonic::formats {

// Nearest integer as a float, halves to even; for |x| < 2^22 (rounding mode to nearest).
inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }
inline float nearest_code(float x, float lowest, float highest) {
  return nearest(std::min(std::max(x, lowest), highest));
}

// x rounded to 16 bits; upwards in magnitude where that is subnormal, so that the integers that
// multiply a rounded super-scale stay in their range however coarse it is.
inline float super_scale(float x) {
  f16 h(x);
  const float rounded(h), size = x < 0 ? -x : x;
  if (size < 0x1p-14f && (rounded < 0 ? -rounded : rounded) < size) ++h.bits;
  return static_cast<float>(h);
}

// How much an error at each weight counts where no calibration says otherwise: sqrt(2 mean(x^2) +
// x^2), so that the large weights, on which the product with an activation depends most, count
// somewhat more than the many small ones.
template <int N>
void importance(const float* x, float* w) {
  float sum = 0;
  for (int i = 0; i < N; ++i) sum += x[i] * x[i];
  const float level = 2 * sum / N;
  for (int i = 0; i < N; ++i) w[i] = level > 0 ? std::sqrt((level + x[i] * x[i]) / level) : 1.0f;
}

// Sums over a group: what a least-squares fit of x by q needs.
struct Moments {
  float w = 0, q = 0, qq = 0, x = 0, qx = 0, xx = 0;
};
template <int N>
Moments moments(const float* x, const float* w, const float* q) {
  Moments m;
  float sums[6][4] = {};
  for (int i = 0; i < N; i += 4) {
    for (int k = 0; k < 4; ++k) {
      const float wi = w[i + k], xi = x[i + k], qi = q[i + k], wq = wi * qi, wx = wi * xi;
      sums[0][k] += wi;
      sums[1][k] += wq;
      sums[2][k] += wq * qi;
      sums[3][k] += wx;
      sums[4][k] += wx * qi;
      sums[5][k] += wx * xi;
    }
  }
  float* const fields[6] = {&m.w, &m.q, &m.qq, &m.x, &m.qx, &m.xx};
  for (int f = 0; f < 6; ++f) *fields[f] = (sums[f][0] + sums[f][1]) + (sums[f][2] + sums[f][3]);
  return m;
}

// Of x against scale * q + offset.
template <int N>
float weighted_error(const float* x, const float* w, const float* q, float scale, float offset) {
  float error[4] = {};
  for (int i = 0; i < N; i += 4) {
    for (int j = 0; j < 4; ++j) {
      const float e = scale * q[i + j] + offset - x[i + j];
      error[j] += w[i + j] * e * e;
    }
  }
  return (error[0] + error[1]) + (error[2] + error[3]);
}

// x ~ scale * q + offset with offset <= 0, and the weighted squared error that is left.
struct AffineFit {
  float scale = 0, offset = 0, error = 0;
};
inline AffineFit solve_affine(const Moments& m) {
  const float determinant = m.w * m.qq - m.q * m.q;
  AffineFit fit;
  if (determinant > 0) {
    fit.scale = (m.w * m.qx - m.q * m.x) / determinant;
    fit.offset = (m.qq * m.x - m.q * m.qx) / determinant;
  } else {
    fit.offset = m.x / m.w;  // all codes are equal: the offset carries the group
  }
  if (fit.offset > 0) {
    fit.offset = 0;
    fit.scale = m.qq > 0 ? m.qx / m.qq : 0;
  }
  fit.error = m.xx - fit.scale * m.qx - fit.offset * m.x;
  return fit;
}

// Codes 0 ... top for a given inverse scale and offset.
template <int N>
void affine_codes(const float* x, float inverse, float offset, float top, float* q) {
  for (int i = 0; i < N; ++i) q[i] = nearest_code((x[i] - offset) * inverse, 0.0f, top);
}

// The best of 21 ranges around (lowest, highest weight), each with the least-squares fit of its
// codes.
template <int N>
AffineFit search_affine(const float* x, const float* w, float top) {
  float low = 0, high = x[0];
  for (int i = 0; i < N; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  float q[N];
  if (!(high > low)) return {0, low, 0};  // one value, not above zero
  AffineFit best{0, 0, INFINITY};
  for (int step = -10; step <= 10; ++step) {
    const float inverse = (top + 0.1f * static_cast<float>(step)) / (high - low);
    if (!std::isfinite(inverse)) return {0, low, 0};  // a range below the smallest scale
    affine_codes<N>(x, inverse, low, top, q);
    const AffineFit fit = solve_affine(moments<N>(x, w, q));
    if (fit.scale > 0 && fit.error < best.error) best = fit;
  }
  return best;
}

}  // namespace supersonic::formats
