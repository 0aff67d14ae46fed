// Q4_K (GGUF type 12): 256 weights in 144 bytes, w = d s q - dmin m with 4-bit codes q and, for
// each 32 weights, a 6-bit scale s and a 6-bit minimum m.
//
// Each 64 weights have 32 bytes of codes: the first 32 weights in the low nibbles, the others in
// the high ones. The encoder fits each group by weighted least squares (fit.h), rounds scales and
// minima to six bits, then improves the whole block by turns: every (s, m) against its eight
// neighbours, and (d, dmin) by least squares over all 256.
#pragma once
#include "formats/block.h"
#include "formats/fit.h"

namespace supersonic::formats {

struct Q4_K {
  static constexpr std::string_view name = "q4_k";
  static constexpr std::string_view fallback = "q5_0";
  static constexpr int ggml_type = 12;
  static constexpr int weights = 256;
  struct Block {
    f16 d, dmin;
    std::uint8_t scales[12];
    std::uint8_t qs[128];
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d), dmin(b.dmin);
    for (int k = 0; k < 8; ++k) {
      const auto [s, m] = unpack_scale_min(b.scales, k);
      const float scale = d * static_cast<float>(s), min = dmin * static_cast<float>(m);
      for (int j = 0; j < 32; ++j) {
        const int q = b.qs[k / 2 * 32 + j] >> (k % 2 * 4) & 15;
        out[32 * k + j] = scale * static_cast<float>(q) - min;
      }
    }
  }

  static void encode(const float* x, Block& b);

 private:
  static constexpr float kTop = 15, kTopScale = 63;

  // The block while it is searched: every group's scale and minimum as integers, the codes that go
  // with them.
  struct Draft {
    float d = 0, dmin = 0, error = 0;  // d, dmin: exact binary16 values
    float s[8] = {}, m[8] = {};
    float q[256] = {};
  };

  static float rounded(float x) { return static_cast<float>(f16(x)); }

  // Codes of group k for given integers; returns the weighted squared error.
  static float group_codes(const Draft& t, const float* x, const float* w, float s, float m,
                           float* q) {
    const float scale = t.d * s, offset = -t.dmin * m;
    affine_codes<32>(x, scale > 0 ? 1 / scale : 0.0f, offset, kTop, q);
    float error[4] = {};
    for (int i = 0; i < 32; i += 4) {
      for (int j = 0; j < 4; ++j) {
        const float e = scale * q[i + j] + offset - x[i + j];
        error[j] += w[i + j] * e * e;
      }
    }
    return (error[0] + error[1]) + (error[2] + error[3]);
  }

  // Tries each group's integers and their neighbours, `reach` steps each way, and sets the codes of
  // the best.
  static void choose_integers(Draft& t, const float* x, const float* w, const float (*start)[2],
                              int reach) {
    t.error = 0;
    for (int k = 0; k < 8; ++k) {
      float best = INFINITY, q[32];
      for (int ds = -reach; ds <= reach; ++ds) {
        for (int dm = -reach; dm <= reach; ++dm) {
          const float s = std::clamp(start[k][0] + static_cast<float>(ds), 0.0f, kTopScale);
          const float m = std::clamp(start[k][1] + static_cast<float>(dm), 0.0f, kTopScale);
          const float error = group_codes(t, x + 32 * k, w + 32 * k, s, m, q);
          if (error >= best) continue;
          best = error;
          t.s[k] = s;
          t.m[k] = m;
          std::copy(q, q + 32, t.q + 32 * k);
        }
      }
      t.error += best;
    }
  }

  // (d, dmin) of least weighted squared error for the draft's integers and codes; false if there is
  // no such pair.
  static bool refit(Draft& t, const float* x, const float* w) {
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // x ~ d a + dmin b with a = s q, b = -m
    for (int k = 0; k < 8; ++k) {
      const Moments g = moments<32>(x + 32 * k, w + 32 * k, t.q + 32 * k);
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
    AffineFit fits[8];
    float top_scale = 0, top_min = 0, start[8][2];
    for (int k = 0; k < 8; ++k) {
      fits[k] = search_affine<32>(x + 32 * k, w + 32 * k, kTop);
      top_scale = std::max(top_scale, fits[k].scale);
      top_min = std::max(top_min, -fits[k].offset);
    }
    t.d = super_scale(top_scale / kTopScale);
    t.dmin = super_scale(top_min / kTopScale);
    for (int k = 0; k < 8; ++k) {
      start[k][0] = t.d > 0 ? nearest_code(fits[k].scale / t.d, 0, kTopScale) : 0;
      start[k][1] = t.dmin > 0 ? nearest_code(-fits[k].offset / t.dmin, 0, kTopScale) : 0;
    }
    choose_integers(t, x, w, start, 1);
    return t;
  }

  static void store(const Draft& t, Block& b) {
    ScaleMin integers[8];
    for (int k = 0; k < 8; ++k) {
      integers[k] = {static_cast<std::uint8_t>(t.s[k]), static_cast<std::uint8_t>(t.m[k])};
    }
    b.d = f16(t.d);
    b.dmin = f16(t.dmin);
    pack_scale_min(integers, b.scales);
    for (int i = 0; i < 128; ++i) {
      const float* q = t.q + i / 32 * 64 + i % 32;
      b.qs[i] = static_cast<std::uint8_t>(static_cast<int>(q[0]) | static_cast<int>(q[32]) << 4);
    }
  }
};
static_assert(sizeof(Q4_K::Block) == 144);

inline void Q4_K::encode(const float* x, Block& b) {
  float w[256];
  importance<256>(x, w);
  Draft best = first_draft(x, w);
  for (int round = 0; round < 3; ++round) {
    Draft next = best;
    if (!refit(next, x, w)) break;
    float start[8][2];
    for (int k = 0; k < 8; ++k) {
      start[k][0] = next.s[k];
      start[k][1] = next.m[k];
    }
    choose_integers(next, x, w, start, 1);
    if (next.error >= best.error) break;
    best = next;
  }
  store(best, b);
}

}  // namespace supersonic::formats
