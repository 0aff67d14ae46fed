// AdamW for one instruction set. Moments in 8 bits are decoded through the 1 KB tables, which stay
// in L1, into a block on the stack; codes are found in closed form: six comparisons give the
// decade, one multiplication the cell.
#pragma once
#include "backend/cpu/kernels/adamw.h"
#include "backend/cpu/simd_math.h"
#include "core/rounding.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

struct AdamWFactors {  // what a step needs of the hyper-parameters
  float grad_scale, decay, beta1, beta2, one_minus_beta1, one_minus_beta2, correction1, correction2,
      lr, eps;
};
inline AdamWFactors factors(const AdamWHyper& h) {
  AdamWFactors f{};
  const double t = static_cast<double>(h.step);
  f.grad_scale = h.grad_scale ? *h.grad_scale : 1.0f;
  f.decay = static_cast<float>(1.0 - static_cast<double>(h.lr) * h.weight_decay);
  f.beta1 = h.beta1;
  f.beta2 = h.beta2;
  f.one_minus_beta1 = static_cast<float>(1.0 - static_cast<double>(h.beta1));
  f.one_minus_beta2 = static_cast<float>(1.0 - static_cast<double>(h.beta2));
  f.correction1 = static_cast<float>(1.0 - __builtin_pow(h.beta1, t));
  f.correction2 = static_cast<float>(__builtin_sqrt(1.0 - __builtin_pow(h.beta2, t)));
  f.lr = h.lr;
  f.eps = h.eps;
  return f;
}

// Rounding draws of kAdamWBlock elements from `first` on, a multiple of kAdamWBlock: Philox blocks side by side, one a lane of
// plain arrays, which the compiler turns into vectors.
struct RoundingDraws {
  static constexpr int kBlocks = kAdamWBlock / kDrawsPerBlock;
  alignas(64) std::uint32_t words[4][kBlocks];

  RoundingDraws(const AdamWHyper& h, std::int64_t first) {
    for (int b = 0; b < kBlocks; ++b) {
      const PhiloxBlock c = rounding_counter(static_cast<std::uint32_t>(h.step), static_cast<std::uint64_t>(first / kDrawsPerBlock + b));
      for (int w = 0; w < 4; ++w) words[w][b] = c[static_cast<std::size_t>(w)];
    }
    auto k0 = static_cast<std::uint32_t>(h.seed), k1 = static_cast<std::uint32_t>(h.seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      for (int b = 0; b < kBlocks; ++b) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * words[0][b], p1 = std::uint64_t{0xCD9E8D57u} * words[2][b];
        words[0][b] = static_cast<std::uint32_t>(p1 >> 32) ^ words[1][b] ^ k0;
        words[1][b] = static_cast<std::uint32_t>(p1);
        words[2][b] = static_cast<std::uint32_t>(p0 >> 32) ^ words[3][b] ^ k1;
        words[3][b] = static_cast<std::uint32_t>(p0);
      }
    }
  }
  std::uint32_t of(std::int64_t element) const { return (words[element % kDrawsPerBlock / 2][element / kDrawsPerBlock] >> (element % 2 * 16)) & 0xffffu; }
};

// f(float* p, begin, count) for the parameters begin ... begin + count - 1, at most kAdamWBlock of them from a multiple of that on.
template <class F>
inline void update_block(const AdamWParameters& p, const AdamWHyper& h, std::int64_t begin, std::int64_t count, F&& f) {
  if (p.wide) return f(p.wide + begin, begin, count);
  alignas(64) float values[kAdamWBlock];
  bf16* narrow = p.narrow + begin;
  for_each_vec(count, [&](auto i, auto n) { store(values + i, load(narrow + i, n), n); });
  f(values, begin, count);
  const RoundingDraws draws(h, begin);
  for (std::int64_t i = 0; i < count; ++i) narrow[i] = round_stochastically(values[i], draws.of(i));
}

inline void adamw_step(Pool& pool, const AdamW& a, const AdamWHyper& hyper) {
  const AdamWFactors f = factors(hyper);
  const float step_size = f.lr / f.correction1, inverse_root = 1.0f / f.correction2;
  const auto update = [&](float* p, std::int64_t begin, std::int64_t count) {
    float *m = a.m + begin, *v = a.v + begin;
    const float* g = a.g + begin;
    for_each_vec(count, [&](auto i, auto n) {
      const Vec grad = load(g + i, n) * f.grad_scale, m0 = load(m + i, n);
      const Vec m1 = fma(grad - m0, f.one_minus_beta1, m0);
      const Vec v1 = fma(grad * f.one_minus_beta2, grad, load(v + i, n) * f.beta2);
      store(m + i, m1, n);
      store(v + i, v1, n);
      const Vec ratio = m1 / fma(sqrt(v1), inverse_root, set(f.eps));
      store(p + i, fma(ratio, -step_size, load(p + i, n) * f.decay), n);
    });
  };
  pool.ranges(a.n, 1024, [&](std::int64_t begin, std::int64_t end, int) {
    if (a.p.wide) return update(a.p.wide + begin, begin, end - begin);
    for (std::int64_t at = begin; at < end; at += kAdamWBlock)
      update_block(a.p, hyper, at, end - at < kAdamWBlock ? end - at : kAdamWBlock, update);
  });
}

// Code of a value in [0, 1], in a dynamic map whose decade i has 2^(i + shift) cells: its position
// among the positive entries, 0 for the smallest; -1 for 0. A decade ends half-way between its last
// entry and the next one's first.
template <int shift>
inline VecI dynamic_code(Vec a) {
  constexpr double powers[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
  Vec scale{}, offset{}, last{};
  VecI base = set_int(-1);
  for (int i = 0; i < 7; ++i) {
    const double cells = 1 << (i + shift), first = (0.1 + 0.45 / cells) * powers[i];
    const double before = i == 0 ? 0.0 : (1.0 - 0.9 * 0.5 / (1 << (i - 1 + shift))) * powers[i - 1];
    const VecI inside = a >= static_cast<float>((first + before) / 2);
    // the cell is floor((a / power - 0.1) / 0.9 * cells)
    scale = select(inside, set(static_cast<float>(cells / (0.9 * powers[i]))), scale);
    offset = select(inside, set(static_cast<float>(-0.1 / 0.9 * cells)), offset);
    last = select(inside, set(static_cast<float>(cells - 1)), last);
    base = select(inside, set_int((1 << (i + shift)) - (1 << shift)), base);
  }
  const Vec cell = min(last, max(Vec{}, fma(a, scale, offset)));
  constexpr double top = 1.0 - 0.9 * 0.5 / (1 << (6 + shift));
  const VecI one = a >= static_cast<float>((top + 1.0) / 2);
  return select(one, set_int((1 << (7 + shift)) - (1 << shift)), base + to_int(cell));
}

// A negative moment never becomes 0 or positive by rounding: it takes the smallest negative code.
inline VecI signed_code(Vec x, float inverse_max) {
  const VecI k = dynamic_code<0>(abs(x) * inverse_max);
  const VecI negative = select(k >= 127, VecI{}, 126 - select(k < 0, VecI{}, k));
  return select(x < 0.0f, negative, 128 + k);
}

struct AdamWBlock {
  alignas(64) float m[kAdamWBlock];
  alignas(64) float v[kAdamWBlock];
  alignas(64) std::int32_t codes[kAdamWBlock];
};

// values: of the block's parameters.
inline void adamw_block_8bit(const AdamW8bit& a, const AdamWFactors& f, std::int64_t block,
                             float* values, AdamWBlock& s) {
  const float *map_m = dynamic_map_signed(), *map_v = dynamic_map_unsigned();
  const std::int64_t begin = block * kAdamWBlock, left = a.n - begin;
  const std::int64_t count = left < kAdamWBlock ? left : kAdamWBlock;
  const float step_size = -f.lr * f.correction2 / f.correction1, eps = f.correction2 * f.eps;
  const float old_m = a.m_max[block], old_v = a.v_max[block];
  for (std::int64_t i = 0; i < count; ++i) s.m[i] = map_m[a.m[begin + i]] * old_m;
  for (std::int64_t i = 0; i < count; ++i) s.v[i] = map_v[a.v[begin + i]] * old_v;
  Vec top_m{}, top_v{};
  for_each_vec(count, [&](auto i, auto n) {
    Vec g = load(a.g + begin + i, n) * f.grad_scale;
    g = select(abs(g) < kInfinity, g, Vec{});
    const Vec m = fma(g, f.one_minus_beta1, load(s.m + i, n) * f.beta1);
    const Vec v = fma(g * f.one_minus_beta2, g, load(s.v + i, n) * f.beta2);
    store(s.m + i, m, n);
    store(s.v + i, v, n);
    top_m = max(top_m, abs(m));
    top_v = max(top_v, v);
    const Vec p = fma(m / (sqrt(v) + eps), step_size, load(values + i, n));
    store(values + i, p * f.decay, n);
  });
  const float max_m = reduce_max(top_m), max_v = reduce_max(top_v);
  a.m_max[block] = max_m;
  a.v_max[block] = max_v;
  const float inverse_m = max_m > 0 ? 1.0f / max_m : 0.0f,
              inverse_v = max_v > 0 ? 1.0f / max_v : 0.0f;
  for_each_vec(count,
               [&](auto i, auto) { store(s.codes + i, signed_code(load(s.m + i), inverse_m)); });
  for (std::int64_t i = 0; i < count; ++i) a.m[begin + i] = static_cast<std::uint8_t>(s.codes[i]);
  for_each_vec(count, [&](auto i, auto) {
    store(s.codes + i, dynamic_code<1>(load(s.v + i) * inverse_v) + 1);
  });
  for (std::int64_t i = 0; i < count; ++i) a.v[begin + i] = static_cast<std::uint8_t>(s.codes[i]);
}

inline void adamw_step_8bit(Pool& pool, const AdamW8bit& a, const AdamWHyper& hyper) {
  const AdamWFactors f = factors(hyper);
  pool.ranges((a.n + kAdamWBlock - 1) / kAdamWBlock, 1,
              [&](std::int64_t begin, std::int64_t end, int) {
                AdamWBlock scratch{};
                for (std::int64_t block = begin; block < end; ++block) {
                  const std::int64_t at = block * kAdamWBlock;
                  update_block(a.p, hyper, at, a.n - at < kAdamWBlock ? a.n - at : kAdamWBlock,
                               [&](float* p, std::int64_t, std::int64_t) { adamw_block_8bit(a, f, block, p, scratch); });
                }
              });
}

// Squares are summed in fp32 over 64 vectors, then in fp64: the error stays far below one fp32
// rounding of the result.
inline double sum_of_squares(const float* x, std::int64_t n) {
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += 64 * kLanes) {
    const std::int64_t left = n - begin, count = left < 64 * kLanes ? left : 64 * kLanes;
    Vec s[4] = {};
    std::int64_t i = 0;
    for (; i + 4 * kLanes <= count; i += 4 * kLanes)
      for (int u = 0; u < 4; ++u) {
        const Vec v = load(x + begin + i + u * kLanes);
        s[u] = fma(v, v, s[u]);
      }
    for_each_vec(count - i, [&](auto j, auto lanes) {
      const Vec v = load(x + begin + i + j, lanes);
      s[0] = fma(v, v, s[0]);
    });
    total += reduce_add((s[0] + s[1]) + (s[2] + s[3]));
  }
  return total;
}

inline void gradient_norm(Pool& pool, const GradientNorm& a) {
  double* sums = static_cast<double*>(a.workspace);
  std::int64_t first = 0;
  for (int s = 0; s < a.count; ++s) {
    const GradientSpan span = a.spans[s];
    const std::int64_t chunks = norm_chunks(span.n);
    pool.ranges(chunks, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t c = begin; c < end; ++c) {
        const std::int64_t left = span.n - c * kNormChunk;
        sums[first + c] =
            sum_of_squares(span.data + c * kNormChunk, left < kNormChunk ? left : kNormChunk);
      }
    });
    first += chunks;
  }
  double total = 0;
  for (std::int64_t c = 0; c < first; ++c) total += sums[c];
  const float norm = static_cast<float>(__builtin_sqrt(total));
  if (a.norm) *a.norm = norm;
  if (!a.scale) return;
  const float factor = a.max_norm / (norm + 1e-6f);
  *a.scale = a.max_norm > 0 && factor < 1.0f ? factor : 1.0f;
}

const AdamWKernels& adamw_kernels() {
  static constexpr AdamWKernels table{adamw_step, adamw_step_8bit, gradient_norm};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
