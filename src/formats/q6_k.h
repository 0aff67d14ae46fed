// Q6_K (GGUF type 14): 256 weights in 210 bytes, w = d s (q - 32) with 6-bit codes q and a signed
// 8-bit scale s for each 16 weights.
//
// Each half of 128 weights has 64 bytes of low nibbles and 32 bytes of high bits. Weight i of the
// half, l = i % 32: low nibble in ql[i % 64], the low half of the byte for i < 64; high bits in
// qh[l], bits 2 (i / 32) and up. The encoder fits each group's scale by weighted least squares over
// a set of ranges, rounds the scales to integers, then improves the block by turns: every s against
// its neighbours, and d by least squares over all 256 weights.
#pragma once
#include "formats/block.h"
#include "formats/fit.h"

namespace supersonic::formats {

struct Q6_K {
  static constexpr std::string_view name = "q6_k";
  static constexpr std::string_view fallback = "q8_0";
  static constexpr int ggml_type = 14;
  static constexpr int weights = 256;
  struct Block {
    std::uint8_t ql[128];
    std::uint8_t qh[64];
    std::int8_t scales[16];
    f16 d;
  };

  static constexpr void decode(const Block& b, float* out) {
    const float d(b.d);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128, r = i % 128;
      const int low = b.ql[half * 64 + r % 64] >> (r / 64 * 4) & 15;
      const int high = b.qh[half * 32 + r % 32] >> (r / 32 * 2) & 3;
      out[i] =
          d * static_cast<float>(b.scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
    }
  }

  static void encode(const float* x, Block& b);

 private:
  // The block while it is searched: d is an exact binary16 value, s the integer scales, q the codes
  // -32 ... 31.
  struct Draft {
    float d = 0, error = 0;
    float s[16] = {};
    float q[256] = {};
  };

  static float rounded(float x) { return static_cast<float>(f16(x)); }

  static void codes(const float* x, float inverse, float* q) {
    for (int i = 0; i < 16; ++i) q[i] = nearest_code(x[i] * inverse, -32.0f, 31.0f);
  }

  // The scale of least weighted squared error among 19 ranges that map the farthest weight near to
  // -32.
  static float search_scale(const float* x, const float* w) {
    const float top = farthest(x, 16);
    float q[16], best_gain = 0, best = 0;
    for (int step = -9; step <= 9; ++step) {
      const float inverse = -(32 + 0.1f * static_cast<float>(step)) / top;
      if (!std::isfinite(inverse)) return 0;
      codes(x, inverse, q);
      const Moments m = moments<16>(x, w, q);
      const float gain = m.qq > 0 ? m.qx * m.qx / m.qq : 0;
      if (gain > best_gain) {
        best_gain = gain;
        best = m.qx / m.qq;
      }
    }
    return best;
  }

  static float group_codes(float scale, const float* x, const float* w, float* q) {
    codes(x, magnitude(scale) > 0 ? 1 / scale : 0.0f, q);
    float error[4] = {};
    for (int i = 0; i < 16; i += 4) {
      for (int j = 0; j < 4; ++j) {
        const float e = scale * q[i + j] - x[i + j];
        error[j] += w[i + j] * e * e;
      }
    }
    return (error[0] + error[1]) + (error[2] + error[3]);
  }

  // Tries each group's integer and its neighbours, and sets the codes of the best.
  static void choose_integers(Draft& t, const float* x, const float* w, const float* start) {
    t.error = 0;
    for (int k = 0; k < 16; ++k) {
      float best = INFINITY, q[16];
      for (int step = -1; step <= 1; ++step) {
        const float s = std::clamp(start[k] + static_cast<float>(step), -128.0f, 127.0f);
        const float error = group_codes(t.d * s, x + 16 * k, w + 16 * k, q);
        if (error >= best) continue;
        best = error;
        t.s[k] = s;
        std::copy(q, q + 16, t.q + 16 * k);
      }
      t.error += best;
    }
  }

  static Draft first_draft(const float* x, const float* w) {
    Draft t;
    float scales[16], start[16];
    for (int k = 0; k < 16; ++k) scales[k] = search_scale(x + 16 * k, w + 16 * k);
    t.d = super_scale(farthest(scales, 16) / -128);
    for (int k = 0; k < 16; ++k) {
      start[k] = magnitude(t.d) > 0 ? nearest_code(scales[k] / t.d, -128, 127) : 0;
    }
    choose_integers(t, x, w, start);
    return t;
  }

  // d of least weighted squared error for the draft's integers and codes.
  static bool refit(Draft& t, const float* x, const float* w) {
    double qq = 0, qx = 0;
    for (int k = 0; k < 16; ++k) {
      const Moments g = moments<16>(x + 16 * k, w + 16 * k, t.q + 16 * k);
      qq += static_cast<double>(t.s[k]) * t.s[k] * g.qq;
      qx += static_cast<double>(t.s[k]) * g.qx;
    }
    if (qq <= 0) return false;
    t.d = rounded(static_cast<float>(qx / qq));
    return magnitude(t.d) > 0 && magnitude(t.d) < kLargestWeight;
  }

  static void store(const Draft& t, Block& b) {
    b.d = f16(t.d);
    for (int k = 0; k < 16; ++k) b.scales[k] = static_cast<std::int8_t>(t.s[k]);
    for (auto& byte : b.ql) byte = 0;
    for (auto& byte : b.qh) byte = 0;
    for (int i = 0; i < 256; ++i) {
      const int q = static_cast<int>(t.q[i]) + 32, half = i / 128, r = i % 128;
      std::uint8_t& low = b.ql[half * 64 + r % 64];
      std::uint8_t& high = b.qh[half * 32 + r % 32];
      low = static_cast<std::uint8_t>(low | (q & 15) << (r / 64 * 4));
      high = static_cast<std::uint8_t>(high | (q >> 4) << (r / 32 * 2));
    }
  }
};
static_assert(sizeof(Q6_K::Block) == 210);

inline void Q6_K::encode(const float* x, Block& b) {
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
  store(best, b);
}

}  // namespace supersonic::formats
