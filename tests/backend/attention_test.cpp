// Attention against plain fp64 loops and finite differences: grouped queries, packed sequences,
// windows, empty ranges, sequences of one token, strided misaligned views, poisoned outputs and
// workspaces, every instruction set.
#include "backend/cpu/kernels/attention.h"
#include "core/error.h"
#include "kernel_test_util.h"

namespace supersonic::cpu::test {
namespace {

struct Problem {
  std::int64_t queries, keys, heads, kv_heads, d;
  std::vector<std::int32_t> lo, hi;
  double scale = 0.3;
};

Problem causal(std::int64_t queries, std::int64_t keys, std::int64_t heads, std::int64_t kv_heads,
               std::int64_t d) {
  Problem p{queries, keys, heads, kv_heads, d, {}, {}};
  for (std::int64_t i = 0; i < queries; ++i)
    p.lo.push_back(0), p.hi.push_back(static_cast<int>(keys - queries + i));
  return p;
}
Problem packed(std::vector<int> lengths, std::int64_t heads, std::int64_t kv_heads,
               std::int64_t d) {
  Problem p{0, 0, heads, kv_heads, d, {}, {}};
  for (int n : lengths) {
    for (int i = 0; i < n; ++i)
      p.lo.push_back(static_cast<int>(p.keys)), p.hi.push_back(static_cast<int>(p.keys + i));
    p.keys += n;
  }
  p.queries = p.keys;
  return p;
}
Problem windowed(std::int64_t n, int window, std::int64_t heads, std::int64_t kv_heads,
                 std::int64_t d) {
  Problem p = causal(n, n, heads, kv_heads, d);
  for (int i = 0; i < n; ++i) p.lo[i] = i < window ? 0 : i - window + 1;
  return p;
}
Problem holes(std::int64_t n, std::int64_t heads, std::int64_t kv_heads,
              std::int64_t d) {  // some queries see nothing
  Problem p = causal(n, n, heads, kv_heads, d);
  for (int i = 0; i < n; i += 3) p.lo[i] = 5, p.hi[i] = i % 2 ? 4 : -1;
  return p;
}
Problem scattered(std::mt19937& rng, std::int64_t queries, std::int64_t keys, std::int64_t heads,
                  std::int64_t kv_heads, std::int64_t d) {
  Problem p{queries, keys, heads, kv_heads, d, {}, {}};
  for (int i = 0; i < queries; ++i) {
    p.lo.push_back(static_cast<int>(rng() % keys));
    p.hi.push_back(p.lo.back() - 1 + static_cast<int>(rng() % (keys - p.lo.back() + 1)));
  }
  return p;
}

std::vector<Problem> problems() {
  std::mt19937 rng(11);
  return {
      causal(1, 1, 1, 1, 8),       causal(5, 5, 2, 1, 32),    causal(70, 70, 9, 3, 64),
      causal(131, 131, 2, 2, 40),  causal(3, 200, 8, 2, 128), packed({1, 7, 1, 64, 33}, 3, 1, 24),
      windowed(150, 17, 4, 2, 16), holes(50, 2, 1, 48),       scattered(rng, 90, 130, 6, 2, 96),
      causal(20, 20, 2, 1, 256),   causal(1, 3001, 4, 2, 64), scattered(rng, 8, 2500, 6, 3, 80)};
}

// Rows of `heads` heads inside a wider buffer.
struct View {
  Buffer buffer;
  std::int64_t stride = 0, heads = 0, d = 0;
  View(DType type, std::int64_t rows, std::int64_t heads, std::int64_t d, std::mt19937& rng)
      : buffer(type, rows * (heads * d + 6), rng), stride(heads * d + 6), heads(heads), d(d) {}
  View(DType type, std::int64_t rows, std::int64_t heads, std::int64_t d)
      : buffer(type, rows * (heads * d + 6)), stride(heads * d + 6), heads(heads), d(d) {}
  double at(std::int64_t row, std::int64_t head, std::int64_t e) const {
    return buffer[row * stride + head * d + e];
  }
  void* data() { return buffer.data(); }
  std::vector<double> dense(std::int64_t rows) const {
    std::vector<double> out;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < heads * d; ++i) out.push_back(buffer[r * stride + i]);
    return out;
  }
};

struct Reference {
  std::vector<double> o, lse, dq, dk, dv;
};

// Forward and backward in fp64 from the definition: o = P v; dP = do v^T; dS = P (dP - rowsum(P
// dP)).
Reference reference(const Problem& p, const std::vector<double>& q, const std::vector<double>& k,
                    const std::vector<double>& v, const std::vector<double>* g) {
  const std::int64_t group = p.heads / p.kv_heads, d = p.d;
  Reference r;
  r.o.assign(p.queries * p.heads * d, 0), r.lse.assign(p.queries * p.heads, -INFINITY);
  r.dq.assign(q.size(), 0), r.dk.assign(k.size(), 0), r.dv.assign(v.size(), 0);
  for (std::int64_t i = 0; i < p.queries; ++i)
    for (std::int64_t h = 0; h < p.heads; ++h) {
      if (p.hi[i] < p.lo[i]) continue;
      const std::int64_t n = p.hi[i] - p.lo[i] + 1, at = (i * p.heads + h) * d;
      const auto kv = [&](std::int64_t j) { return ((p.lo[i] + j) * p.kv_heads + h / group) * d; };
      std::vector<double> s(n), dp(n);
      double top = -INFINITY, sum = 0, dot = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t e = 0; e < d; ++e) s[j] += q[at + e] * k[kv(j) + e];
        s[j] *= p.scale;
        top = std::fmax(top, s[j]);
      }
      for (double& x : s) sum += std::exp(x - top);
      r.lse[i * p.heads + h] = top + std::log(sum);
      for (double& x : s) x = std::exp(x - top) / sum;
      for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t e = 0; e < d; ++e) r.o[at + e] += s[j] * v[kv(j) + e];
      if (!g) continue;
      for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t e = 0; e < d; ++e) dp[j] += (*g)[at + e] * v[kv(j) + e];
        dot += s[j] * dp[j];
      }
      for (std::int64_t j = 0; j < n; ++j) {
        const double ds = s[j] * (dp[j] - dot) * p.scale;
        for (std::int64_t e = 0; e < d; ++e) {
          r.dq[at + e] += ds * k[kv(j) + e];
          r.dk[kv(j) + e] += ds * q[at + e];
          r.dv[kv(j) + e] += s[j] * (*g)[at + e];
        }
      }
    }
  return r;
}

double relative_difference(const std::vector<double>& got, const std::vector<double>& want) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (got[i] == want[i]) continue;  // equal infinities
    difference += (got[i] - want[i]) * (got[i] - want[i]);
  }
  for (double w : want) norm += std::isinf(w) ? 0 : w * w;
  return std::sqrt(difference / (norm > 0 ? norm : 1));
}

std::vector<double> lse_values(const std::vector<float>& v) { return {v.begin(), v.end()}; }

// bf16: probabilities and outputs are rounded to 8 bits, scores come from exact products. fp32:
// sums of up to 3000 terms.
double limit(DType type) { return type == DType::bf16 ? 6e-3 : 5e-6; }

AttentionShape shape_of(const Problem& p) {
  return {p.queries,   p.keys,     p.heads, p.kv_heads, p.d, static_cast<float>(p.scale),
          p.lo.data(), p.hi.data()};
}

struct Result {
  std::vector<double> o, dq, dk, dv;
  std::vector<float> lse;
};

Result compute(Isa level, const Problem& p, DType type, DType kv_type, View& q, View& k, View& v,
               View* g, int threads) {
  Pool pool(threads);
  Result r;
  View o(type, p.queries, p.heads, p.d);
  r.lse.assign(p.queries * p.heads, NAN);
  AttentionForward f;
  f.shape = shape_of(p);
  f.q = q.data(), f.k = k.data(), f.v = v.data(), f.o = o.data(), f.lse = r.lse.data();
  f.q_stride = q.stride, f.k_stride = k.stride, f.v_stride = v.stride, f.o_stride = o.stride;
  f.type = type, f.kv_type = kv_type;
  std::vector<unsigned char> workspace(attention_forward_workspace(f.shape, threads) + 1, 0xff);
  f.workspace = workspace.data();
  attention_kernels(level).forward(pool, f);
  EXPECT_EQ(workspace.back(), 0xff);
  EXPECT_TRUE(o.buffer.guard_intact());
  r.o = o.dense(p.queries);
  if (!g) return r;
  View dq(type, p.queries, p.heads, p.d), dk(type, p.keys, p.kv_heads, p.d),
      dv(type, p.keys, p.kv_heads, p.d);
  AttentionBackward b;
  b.shape = f.shape;
  b.q = q.data(), b.k = k.data(), b.v = v.data(), b.o = o.data(), b.d_o = g->data(),
  b.lse = r.lse.data();
  b.dq = dq.data(), b.dk = dk.data(), b.dv = dv.data();
  b.q_stride = q.stride, b.k_stride = k.stride, b.v_stride = v.stride, b.o_stride = o.stride,
  b.do_stride = g->stride;
  b.dq_stride = dq.stride, b.dk_stride = dk.stride, b.dv_stride = dv.stride, b.type = type;
  std::vector<unsigned char> more(attention_backward_workspace(b.shape, threads) + 1, 0xff);
  b.workspace = more.data();
  attention_kernels(level).backward(pool, b);
  EXPECT_EQ(more.back(), 0xff);
  EXPECT_TRUE(dq.buffer.guard_intact() && dk.buffer.guard_intact() && dv.buffer.guard_intact());
  r.dq = dq.dense(p.queries), r.dk = dk.dense(p.keys), r.dv = dv.dense(p.keys);
  return r;
}

TEST(Attention, EqualsTheDefinitionForwardAndBackward) {
  std::mt19937 rng(12);
  for (const Problem& p : problems())
    for (DType type : {DType::f32, DType::bf16}) {
      View q(type, p.queries, p.heads, p.d, rng), k(type, p.keys, p.kv_heads, p.d, rng),
          v(type, p.keys, p.kv_heads, p.d, rng);
      View g(type, p.queries, p.heads, p.d, rng);
      const auto gradient = g.dense(p.queries);
      const Reference want =
          reference(p, q.dense(p.queries), k.dense(p.keys), v.dense(p.keys), &gradient);
      for (Isa level : levels())
        for (int threads : {1, 3}) {
          SCOPED_TRACE(fmt::format("{} T {} S {} H {}/{} d {} {} threads {}", name_of(level),
                                   p.queries, p.keys, p.heads, p.kv_heads, p.d, name_of(type),
                                   threads));
          const Result got = compute(level, p, type, type, q, k, v, &g, threads);
          EXPECT_LT(relative_difference(got.o, want.o), limit(type));
          EXPECT_LT(relative_difference(lse_values(got.lse), want.lse), 1e-5);
          EXPECT_LT(relative_difference(got.dq, want.dq), 2 * limit(type));
          EXPECT_LT(relative_difference(got.dk, want.dk), 2 * limit(type));
          EXPECT_LT(relative_difference(got.dv, want.dv), 2 * limit(type));
        }
    }
}

TEST(Attention, ForwardReadsAnyCacheType) {
  std::mt19937 rng(13);
  for (const Problem& p : {causal(1, 1500, 9, 3, 64), causal(6, 40, 4, 4, 128)})
    for (DType type : {DType::f32, DType::bf16})
      for (DType kv_type : {DType::f32, DType::bf16, DType::f16}) {
        View q(type, p.queries, p.heads, p.d, rng), k(kv_type, p.keys, p.kv_heads, p.d, rng),
            v(kv_type, p.keys, p.kv_heads, p.d, rng);
        const Reference want =
            reference(p, q.dense(p.queries), k.dense(p.keys), v.dense(p.keys), nullptr);
        for (Isa level : levels())
          EXPECT_LT(
              relative_difference(compute(level, p, type, kv_type, q, k, v, nullptr, 2).o, want.o),
              limit(type))
              << name_of(level);
      }
}

// The reference's own backward, and with it the kernels', against the slope of the reference's
// forward.
TEST(Attention, BackwardEqualsFiniteDifferences) {
  std::mt19937 rng(14);
  const Problem p = packed({3, 1, 6}, 4, 2, 8);
  View q(DType::f32, p.queries, p.heads, p.d, rng), k(DType::f32, p.keys, p.kv_heads, p.d, rng),
      v(DType::f32, p.keys, p.kv_heads, p.d, rng);
  View g(DType::f32, p.queries, p.heads, p.d, rng);
  auto qs = q.dense(p.queries), ks = k.dense(p.keys), vs = v.dense(p.keys);
  const auto gs = g.dense(p.queries);
  const auto loss = [&] {
    const Reference r = reference(p, qs, ks, vs, nullptr);
    double sum = 0;
    for (std::size_t i = 0; i < gs.size(); ++i) sum += r.o[i] * gs[i];
    return sum;
  };
  const auto slopes = [&](std::vector<double>& x) {
    std::vector<double> out;
    for (double& value : x) {
      const double old = value, h = 1e-5;
      value = old + h;
      const double up = loss();
      value = old - h;
      out.push_back((up - loss()) / (2 * h));
      value = old;
    }
    return out;
  };
  const auto dq = slopes(qs), dk = slopes(ks), dv = slopes(vs);
  for (Isa level : levels()) {
    const Result got = compute(level, p, DType::f32, DType::f32, q, k, v, &g, 2);
    EXPECT_LT(relative_difference(got.dq, dq), 1e-5) << name_of(level);
    EXPECT_LT(relative_difference(got.dk, dk), 1e-5) << name_of(level);
    EXPECT_LT(relative_difference(got.dv, dv), 1e-5) << name_of(level);
  }
}

TEST(Attention, RepeatsBitForBit) {
  std::mt19937 rng(15);
  const Problem p = packed({117, 90, 130}, 9, 3, 64);
  View q(DType::bf16, p.queries, p.heads, p.d, rng), k(DType::bf16, p.keys, p.kv_heads, p.d, rng),
      v(DType::bf16, p.keys, p.kv_heads, p.d, rng);
  View g(DType::bf16, p.queries, p.heads, p.d, rng);
  const Result first = compute(isa(), p, DType::bf16, DType::bf16, q, k, v, &g, 2);
  for (int repeat = 0; repeat < 5; ++repeat) {
    const Result again = compute(isa(), p, DType::bf16, DType::bf16, q, k, v, &g, 2);
    EXPECT_EQ(first.o, again.o);
    EXPECT_EQ(first.dq, again.dq);
    EXPECT_EQ(first.dk, again.dk);
    EXPECT_EQ(first.dv, again.dv);
  }
  EXPECT_EQ(first.o, compute(isa(), p, DType::bf16, DType::bf16, q, k, v, nullptr, 4).o);
}

TEST(Attention, SurvivesLargeScores) {
  std::mt19937 rng(16);
  Problem p = causal(40, 40, 2, 1, 16);
  p.scale = 40;  // probabilities are nearly one-hot, exponents far out of range without the running
                 // maximum
  View q(DType::f32, p.queries, p.heads, p.d, rng), k(DType::f32, p.keys, p.kv_heads, p.d, rng),
      v(DType::f32, p.keys, p.kv_heads, p.d, rng);
  const Reference want =
      reference(p, q.dense(p.queries), k.dense(p.keys), v.dense(p.keys), nullptr);
  for (Isa level : levels())
    EXPECT_LT(relative_difference(compute(level, p, DType::f32, DType::f32, q, k, v, nullptr, 1).o,
                                  want.o),
              1e-4)
        << name_of(level);
}

TEST(Attention, RefusesWhatItCannotDo) {
  const std::int32_t lo[] = {0}, hi[] = {4};
  AttentionShape shape{1, 4, 2, 2, 64, 1, lo, hi};
  EXPECT_THROW(check(shape), Error);  // hi behind the last key
  shape.keys = 5;
  EXPECT_NO_THROW(check(shape));
  shape.kv_heads = 3;
  EXPECT_THROW(check(shape), Error);
  shape.kv_heads = 1, shape.d = 60;
  EXPECT_THROW(check(shape), Error);
}

}  // namespace
}  // namespace supersonic::cpu::test
